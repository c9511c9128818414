"""The published checkpoint layouts as lists of names and shapes, written from the layouts' own description.

Independent of the importers, which the tests hold against these. `checkpoint` fills a list by the closed form of the
DiffWave and SaShiMi vectors: names sorted, i the rank, k the flat index, a sin(b k + c i + d).
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, num_in: int, num_out: int) -> Shapes:
    return {f"{name}.weight": (num_out, num_in), f"{name}.bias": (num_out,)}


def plain(name: str, *shape: int) -> Shapes:
    """A convolution's weight and bias; shape as stored."""
    return {f"{name}.weight": shape, f"{name}.bias": (shape[0],)}


def normed(name: str, *shape: int) -> Shapes:
    """The same in the old form of weight norm."""
    gain = (shape[0],) + (1,) * (len(shape) - 1)
    return {f"{name}.bias": (shape[0],), f"{name}.weight_g": gain, f"{name}.weight_v": shape}


def upsampler(name: str, factors: tuple[int, ...]) -> Shapes:
    return {k: v for i, s in enumerate(factors) for k, v in normed(f"{name}.{i}", 1, 1, 3, 2 * s).items()}


def head(c: int, s: int) -> Shapes:
    """First and last convolutions of philsyn's and the fork's networks."""
    return (
        normed("init_conv.0.conv", c, 1, 1) | normed("final_conv.0.conv", s, s, 1) | plain("final_conv.2.conv", 1, s, 1)
    )


def philsyn(
    c: int,
    s: int,
    n: int,
    mel: int = 0,
    factors: tuple[int, ...] = (16, 16),
    embed: tuple[int, int, int] = (128, 512, 512),
) -> Shapes:
    """WaveNet of DiffWave-Vocoder, DiffWave-unconditional and diffwave-sashimi."""
    shapes = head(c, s)
    shapes |= linear("residual_layer.fc_t1", *embed[:2]) | linear("residual_layer.fc_t2", *embed[1:])
    for i in range(n):
        block = f"residual_layer.residual_blocks.{i}"
        shapes |= linear(f"{block}.fc_t", embed[2], c) | normed(f"{block}.dilated_conv_layer.conv", 2 * c, c, 3)
        shapes |= normed(f"{block}.res_conv", c, c, 1) | normed(f"{block}.skip_conv", s, c, 1)
        if mel:
            shapes |= upsampler(f"{block}.upsample_conv2d", factors) | normed(f"{block}.mel_conv.conv", 2 * c, mel, 1)
    return shapes


def lmnt(c: int, n: int, mel: int = 0) -> Shapes:
    shapes = (
        plain("input_projection", c, 1, 1) | plain("skip_projection", c, c, 1) | plain("output_projection", 1, c, 1)
    )
    shapes |= linear("diffusion_embedding.projection1", 128, 512) | linear("diffusion_embedding.projection2", 512, 512)
    if mel:
        shapes |= plain("spectrogram_upsampler.conv1", 1, 1, 3, 32) | plain("spectrogram_upsampler.conv2", 1, 1, 3, 32)
    for i in range(n):
        block = f"residual_layers.{i}"
        shapes |= plain(f"{block}.dilated_conv", 2 * c, c, 3) | linear(f"{block}.diffusion_projection", 512, c)
        shapes |= plain(f"{block}.output_projection", 2 * c, c, 1)
        if mel:
            shapes |= plain(f"{block}.conditioner_projection", 2 * c, mel, 1)
    return shapes


def cdiffuse(c: int, n: int, bins: int) -> Shapes:
    """CDiffuSE's: lmnt's, each block's last convolution in two."""
    shapes = lmnt(c, n, bins)
    for i in range(n):
        for layer in ("output_projection", "output_residual"):
            shapes |= plain(f"residual_layers.{i}.{layer}", c, c, 1)
    return shapes


def dose(c: int, n: int) -> Shapes:
    """DOSE's: lmnt's without a mel, and a second first layer, which is the one that is read."""
    shapes = lmnt(c, n) | plain("version46_input_projection", c, 2, 1)
    return shapes | plain("compress_concat.conv", 1, 2, 1)


def s4(kind: str, name: str, h: int, length: int) -> Shapes:
    """One state-space layer; `length` is that of its stage."""
    if kind == "s4_v3":
        shapes: Shapes = {f"{name}.D": (1, h)} | plain(f"{name}.output_linear.0", 2 * h, h, 1)
        kernel = f"{name}.kernel.kernel"
        shapes |= {f"{kernel}.C": (2, h, 32, 2), f"{kernel}.log_dt": (h,), f"{kernel}.L": ()}
        shapes |= {f"{kernel}.B": (1, h, 32, 2), f"{kernel}.P": (1, h, 32, 2)}
        return shapes | {f"{kernel}.inv_w_real": (h, 32), f"{kernel}.w_imag": (h, 32)}
    shapes = {f"{name}.D": (h,), f"{name}.output_linear.weight": (h, 2 * h), f"{name}.output_linear.bias": (h, 1)}
    for krylov in (f"{name}.kernel.krylov", f"{name}.kernel2.krylov"):
        shapes |= {f"{krylov}.C": (h, 2, 32, 2), f"{krylov}.B": (2, 32, 2), f"{krylov}.w": (32, 2)}
        shapes |= {
            f"{krylov}.log_dt": (h,),
            f"{krylov}.nodes": (length // 2 + 1, 2),
            f"{krylov}.z": (length // 2 + 1, 2),
        }
    return shapes


def sashimi(
    kind: str,
    d: int,
    n: int = 6,
    pool: tuple[int, ...] = (4, 4),
    length: int = 16000,
    mel: int = 0,
    factors: tuple[int, ...] = (16, 16),
    unet: bool = True,
    embed: tuple[int, int, int] = (128, 512, 512),
) -> Shapes:
    """SaShiMi of diffwave-sashimi with expand=2 and ff=2. kind: "s4_paper" or "s4_v3"."""
    shapes = head(d, d) | linear("fc_t1", *embed[:2]) | linear("fc_t2", *embed[1:]) | {"norm.m": (1,), "norm.s": (1,)}

    def block(name: str, h: int, stage_length: int) -> Shapes:
        inner = s4(kind, f"{name}.layer", h, stage_length) | linear(f"{name}.fc_t", embed[2], h)
        inner |= {f"{name}.norm{i}.{key}": (1,) for i in (1, 2) for key in "ms"}
        inner |= normed(f"{name}.ff.ff.0.conv", 2 * h, h, 1) | normed(f"{name}.ff.ff.2.conv", h, 2 * h, 1)
        if mel:
            inner |= upsampler(f"{name}.upsample_conv2d", factors) | normed(f"{name}.mel_conv.conv", h, mel, 1)
        return inner

    h, stage, layer = d, length, 0
    for p in pool:
        for _ in range(n if unet else 0):
            shapes |= block(f"d_layers.{layer}", h, stage)
            layer += 1
        shapes |= normed(f"d_layers.{layer}.linear.conv", 2 * h, p * h, 1)
        h, stage, layer = 2 * h, stage // p, layer + 1
    for i in range(n):
        shapes |= block(f"c_layers.{i}", h, stage)
    layer = 0
    for p in reversed(pool):
        shapes |= normed(f"u_layers.{layer}.linear.conv", p * h // 2, h, 1)
        h, stage, layer = h // 2, stage * p, layer + 1
        for _ in range(n):
            shapes |= block(f"u_layers.{layer}", h, stage)
            layer += 1
    return shapes


BUFFERS = (".w", ".B", ".log_dt", ".nodes", ".z")  # of the paper's generation, all inside `krylov`; of v3 only L


def is_buffer(name: str) -> bool:
    return name.endswith(".L") or (".krylov." in name and name.endswith(BUFFERS))


def rule(shapes: Mapping[str, tuple[int, ...]], shift: float = 0.1) -> Iterator[tuple[str, np.ndarray]]:
    """Each entry by the closed form, float64, in the order of the names."""
    for i, name in enumerate(sorted(shapes)):
        wave = np.sin(0.37 * np.arange(math.prod(shapes[name])) + 1.0 * i + shift).reshape(shapes[name])
        offset = 0.9 if name.endswith("weight_g") else 1.0 if name.endswith(".s") else 0.0
        yield name, offset + 0.3 * wave


def filled(shapes: Mapping[str, tuple[int, ...]], shift: float = 0.1) -> dict[str, Tensor]:
    """A state dict of the published names, float32, by the rule."""
    return {name: torch.from_numpy(value).float() for name, value in rule(shapes, shift)}


def hollow(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Names and shapes without memory: zeros that share one number."""
    kinds = {name: torch.int64 if name.endswith(".L") else torch.float32 for name in shapes}
    return {name: torch.zeros((), dtype=kinds[name]).expand(shape) for name, shape in shapes.items()}


def num_parameters(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Trained numbers of a layout, buffers left out."""
    return sum(math.prod(shape) for name, shape in shapes.items() if not is_buffer(name))
