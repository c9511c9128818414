"""The harness measures what it says: known FLOPs, known errors, fair turns, memory that grows with the input."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import harness, network_call
from benchmarks.network_call import Settings
from benchmarks.networks import NETWORKS

ROOT = Path(__file__).parents[2]


def test_flops_of_a_matrix_product_and_a_convolution_are_the_textbook_numbers():
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    image, kernel = torch.zeros(1, 2, 8, 8), torch.zeros(4, 2, 3, 3)
    assert harness.count_flops(lambda: a @ b) == 2 * 3 * 5 * 7
    assert harness.count_flops(lambda: F.conv2d(image, kernel)) == 2 * 4 * 6 * 6 * 2 * 3 * 3


def test_a_tenth_of_the_amplitude_as_error_is_20_db():
    reference = torch.ones(100)
    error = harness.compare(reference * 1.1, reference)
    assert error.snr_db == pytest.approx(20, abs=1e-4)  # 1.1 in float32
    assert error.max_abs == pytest.approx(0.1, abs=1e-6)


def test_equal_outputs_have_infinite_snr_and_other_shapes_are_refused():
    assert harness.compare(torch.ones(3), torch.ones(3)) == harness.Error(math.inf, 0.0)
    with pytest.raises(ValueError, match=r"expected an output of shape \(3,\), got \(4,\)"):
        harness.compare(torch.ones(4), torch.ones(3))


def test_candidates_take_turns_and_warm_up_is_not_counted():
    order: list[str] = []

    def candidate(name: str):
        return lambda: order.append(name) or torch.zeros(1)

    timings = harness.interleave({"a": candidate("a"), "b": candidate("b")}, rounds=3, warmup=1)
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_the_time_of_a_candidate_is_its_own():
    def sleep():
        time.sleep(0.02)
        return torch.zeros(1)

    timings = harness.interleave({"slow": sleep, "fast": lambda: torch.zeros(1)}, rounds=3)
    assert timings["slow"].median >= 0.02 > timings["fast"].median


def test_best_rate_takes_the_faster_probe_in_its_fastest_round():
    probes = {"matrix product": lambda: torch.zeros(10, 10) @ torch.zeros(10, 10)}  # 2000 FLOP
    timings = {"matrix product": harness.Timing((4.0, 2.0, 8.0))}
    assert harness.best_rate(timings, probes) == 1000


def test_peak_memory_rises_by_what_is_allocated_and_stays():
    code = (
        "import torch; from benchmarks.harness import peak_mib\n"
        "before = peak_mib(); block = torch.ones(64 * 2**18); during = peak_mib(); del block\n"
        "print(during - before, peak_mib() - during)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    risen, after = map(float, run.stdout.split())
    assert 63 < risen < 70  # 64 MiB of float32, and the allocator's own pages
    assert after > -4  # the kernel's count lags by some pages a core


def test_unknown_variants_are_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown variants fp4; choose from: eager, bf16"):
        network_call.choose(NETWORKS["standin"], ["fp4"])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_variants_of_a_network_compute_the_same(name: str):
    network = NETWORKS[name]
    with torch.inference_mode():
        outputs = {}
        for variant in (v for v in network.variants if v not in network_call.SLOW_TO_BUILD):
            module, inputs = network_call.prepare(network, 0.1)
            outputs[variant] = network.variants[variant](module)(*inputs)
    plain = outputs.pop(network.plain)
    if isinstance(inputs[0], torch.Tensor):  # a kernel is made from a length
        assert plain.shape == inputs[0].shape
    for variant, output in outputs.items():
        floor = 20 if variant == "bf16" else 90  # dB; bfloat16 has 8 bits, float32 24, and depth takes its toll
        assert harness.compare(output, plain).snr_db > floor, variant


def test_a_run_reports_floor_ratio_error_and_memory_for_every_variant(tmp_path):
    settings = Settings("standin", seconds=0.2, rounds=3, variants=("bf16",), lengths=(0.2,))
    threads = torch.get_num_threads()
    try:
        found = network_call.measure(settings, NETWORKS["standin"])
    finally:
        torch.set_num_threads(threads)
    found["memory"] = network_call.measure_memory(settings, NETWORKS["standin"])
    plain, half = found["variants"]
    assert (plain["variant"], half["variant"]) == ("eager", "bf16")
    assert plain["speed_up"] == 1
    assert plain["over_floor"] > 0
    assert plain["gflop"] == pytest.approx(2 * 2 * (2 * 16 * 9) * 161 * 21 / 1e9)
    assert plain["snr_db"] > 100  # float32: 2^-24 is 144 dB, two layers lose some
    assert 30 < half["snr_db"] < 70  # bfloat16: 2^-9 is 54 dB
    assert [row["variant"] for row in found["memory"]] == ["eager", "bf16"]
    assert all(row["peak_mib"] > row["call_mib"] >= 0 for row in found["memory"])
    page = network_call.write(found, tmp_path)
    assert page.read_text(encoding="utf-8").count("| bf16 |") == 2
    assert json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))["variants"][0]["variant"] == "eager"
