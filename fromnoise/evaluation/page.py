"""The page of a report: one HTML file with its style, script, pictures and sounds inside, so that it can be mailed.

Names of models and files come from outside and are escaped wherever they stand. The pictures of one example share one
colour scale, and its sounds one gain (1, or less where the loudest would clip), so that both compare by eye and ear.
"""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np

from fromnoise.evaluation.plots import Point, calls_svg, png, spectrogram, spectrogram_figure, thumbnail
from fromnoise.evaluation.rows import Cell, Example, Row, about
from fromnoise.evaluation.statistics import Summary

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --ink2: #777; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tbody tr:hover { background: var(--soft); }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
small, .note { color: var(--ink2); } td small { display: block; } .best { font-weight: 700; } .bad { color: #c33; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
.small { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .5rem; font-size: .8rem; }
figure { margin: 0; } figcaption { overflow-wrap: anywhere; font-weight: 600; }
figure img, figure audio, svg { width: 100%; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; overflow-wrap: anywhere; }
svg { font-size: 12px; } svg text { fill: currentColor; } svg .name { font-weight: 600; font-size: 14px; }
svg .rule { stroke: var(--line); } svg .input { stroke: currentColor; stroke-dasharray: 5 4; opacity: .6; }
"""

SCRIPT = """
document.querySelectorAll("table.sortable th button").forEach(function (button) {
  button.addEventListener("click", function () {
    var head = button.parentElement, body = head.closest("table").tBodies[0];
    var up = head.getAttribute("aria-sort") === "descending", column = head.cellIndex;
    Array.prototype.forEach.call(head.parentElement.cells, function (cell) { cell.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    Array.from(body.rows).map(function (row) { return [row.cells[column].dataset.value, row]; }).sort(function (a, b) {
      if (a[0] === "" || b[0] === "") { return (a[0] === "") - (b[0] === ""); }
      var numbers = !isNaN(a[0]) && !isNaN(b[0]), order = numbers ? a[0] - b[0] : a[0].localeCompare(b[0]);
      return up ? order : -order;
    }).forEach(function (pair) { body.appendChild(pair[1]); });
  });
});
document.addEventListener("play", function (event) {
  document.querySelectorAll("audio").forEach(function (other) { if (other !== event.target) { other.pause(); } });
}, true);
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Evaluation</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def page(
    rows: "Sequence[Row]",
    table: "Sequence[Mapping[str, Cell]]",
    examples: "Sequence[Example]",
    summary: Mapping[str, Any],
    groups: "Mapping[str, tuple[Sequence[Row], Sequence[Mapping[str, Cell]]]] | None" = None,
) -> str:
    """The whole page. table: as `report.cells` makes it; summary: as `report.summary_json` makes it.

    groups: rows and table of some of the files, by name.
    """
    names = list(summary["metrics"])
    parts = [
        "<h1>Evaluation</h1>",
        f"<p>{_counted(len(rows), 'row')} {_over(rows)}: mean, 95 % interval of the "
        "mean (bootstrap over files), and how many files have no score. Click a heading to sort.</p>",
        _table(rows, table, names),
        *(_group(name, some, cells, names) for name, (some, cells) in (groups or {}).items()),
        _changes(rows, table, names),
        _reasons(rows, table),
        _curves(rows, table, names),
        _examples(examples),
        _facts(summary),
    ]
    return PAGE.format(style=STYLE, script=SCRIPT, body="\n".join(part for part in parts if part))


def _counted(count: int, what: str) -> str:
    """'1 row', '2 rows'."""
    return f"{count} {what}{'s' * (count != 1)}"


def _over(rows: "Sequence[Row]") -> str:
    if any(row.whole or row.alone for row in rows):
        return "of sounds of their own: scores of each set as a whole; of single sounds"
    return f"over {_counted(len(rows[0].files), 'file')}"


def _head(names: Sequence[str], cost: bool) -> str:
    """The heading line, each heading a button that sorts."""
    titles = [("row", "model, sampler, steps")]
    titles += [("calls", "network calls per file"), ("RTF", "seconds of work per second of sound")] if cost else []
    for name in names:
        metric = about(name)
        arrow = "\N{UPWARDS ARROW}" if metric.higher_is_better else "\N{DOWNWARDS ARROW}"
        unit = f" {metric.unit}" if metric.unit else ""
        titles.append((f"{name}{unit} {arrow}", metric.definition))
    cells = "".join(f'<th scope="col" title="{escape(d)}"><button>{escape(t)}</button></th>' for t, d in titles)
    return f"<thead><tr>{cells}</tr></thead>"


def _table(rows: "Sequence[Row]", table: "Sequence[Mapping[str, Cell]]", names: Sequence[str]) -> str:
    best = {name: _best([line[name].summary.mean for line in table], about(name).higher_is_better) for name in names}
    lines = []
    for r, (row, line) in enumerate(zip(rows, table, strict=True)):
        cells = [f'<td data-value="{escape(row.label)}">{escape(row.label)}</td>']
        cells += [_number(row.network_calls, "d"), _number(row.real_time_factor, ".3f")]
        cells += [_score(line[name].summary, r == best[name], sum(line[name].reasons.values())) for name in names]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return _sortable(_head(names, True), lines)


def _group(name: str, rows: "Sequence[Row]", table: "Sequence[Mapping[str, Cell]]", names: Sequence[str]) -> str:
    """The table over the files of one group."""
    title = f"<h2>{escape(name)}: {_counted(len(rows[0].files), 'file')}</h2>"
    return title + _table(rows, table, names)


def _sortable(head: str, lines: Sequence[str]) -> str:
    return f'<div class="wide"><table class="sortable">{head}<tbody>{"".join(lines)}</tbody></table></div>'


def _changes(rows: "Sequence[Row]", table: "Sequence[Mapping[str, Cell]]", names: Sequence[str]) -> str:
    """Differences from the first row, file by file."""
    lines = []
    for row, line in zip(rows, table, strict=True):
        changes = [line[name].change for name in names]
        cells = [_score(change, False, 0, "+.3f") for change in changes if change is not None]
        if cells:
            lines.append(f'<tr><td data-value="{escape(row.label)}">{escape(row.label)}</td>{"".join(cells)}</tr>')
    if not lines:
        return ""
    title = f"<h2>Change from {escape(rows[0].label)}</h2>"
    note = "<p>Paired over files; an interval without 0 is a difference.</p>"
    return title + note + _sortable(_head(names, False), lines)


def _number(value: float | int, form: str) -> str:
    shown = format(value, form) if math.isfinite(value) else "\N{EN DASH}"
    return f'<td data-value="{value if math.isfinite(value) else ""}">{shown}</td>'


def _score(summary: Summary, best: bool, missing: int, form: str = ".3f") -> str:
    """Mean, interval, and the count of files without a score."""
    if not math.isfinite(summary.mean):
        return f'<td data-value="" class="bad">none<small>{missing} without a score</small></td>'
    if math.isfinite(summary.low):
        interval = f"{summary.low:{form}} to {summary.high:{form}}"
    elif math.isfinite(summary.deviation):
        interval = f"\N{PLUS-MINUS SIGN} {summary.deviation:{form.lstrip('+')}}"
    else:
        interval = "one file" if summary.count == 1 else f"of {summary.count} files"
    note = f'<small class="bad">{missing} without a score</small>' if missing else ""
    mean = f"{summary.mean:{form}}"
    return f'<td data-value="{summary.mean}"{" class=best" * best}>{mean}<small>{interval}</small>{note}</td>'


def _best(means: Sequence[float], higher: bool) -> int | None:
    """Index of the best mean, None when no row has one or there is nothing to compare."""
    finite = [i for i, mean in enumerate(means) if math.isfinite(mean)]
    if len(finite) < 2:
        return None
    return max(finite, key=lambda i: means[i] if higher else -means[i])


def _reasons(rows: "Sequence[Row]", table: "Sequence[Mapping[str, Cell]]") -> str:
    """Why files have no score, in words."""
    lines = [
        f"<li>{escape(row.label)}, {escape(name)}: {count} file{'s' * (count != 1)}: {escape(reason)}</li>"
        for row, line in zip(rows, table, strict=True)
        for name, cell in line.items()
        for reason, count in cell.reasons.items()
    ]
    return f"<h2>Files without a score</h2><ul>{''.join(lines)}</ul>" if lines else ""


def _curves(rows: "Sequence[Row]", table: "Sequence[Mapping[str, Cell]]", names: Sequence[str]) -> str:
    """One plot per metric: a curve for each model and sampler, the input as a dashed line."""
    plots = []
    for name in names:
        curves: dict[str, list[Point]] = {}
        level = None
        for row, line in zip(rows, table, strict=True):
            s = line[name].summary
            if row.network_calls:
                key = ", ".join(part for part in (row.model, row.variant, row.sampler) if part)
                curves.setdefault(key, []).append(Point(row.network_calls, s.mean, s.low, s.high))
            elif level is None:
                level = s.mean
        plots.append(calls_svg(name, curves, level))
    drawn = "".join(f"<figure>{plot}</figure>" for plot in plots if plot)
    return f'<h2>Quality against network calls</h2><div class="grid">{drawn}</div>' if drawn else ""


def _examples(examples: "Sequence[Example]") -> str:
    """A picture and a player for the input, every estimate, and the clean recording."""
    if not examples:
        return ""
    pictures = find_spec("matplotlib") is not None
    missing = "" if pictures else "<p>No spectrograms: the package matplotlib is not installed.</p>"
    return f"<h2>Examples</h2>{missing}" + "".join(_example(example, pictures) for example in examples)


def _example(example: Example, pictures: bool) -> str:
    waves = {label: np.atleast_2d(wave).astype(np.float32)[:2] for label, wave in example.waves.items()}  # two ears
    waves = {label: np.nan_to_num(wave, posinf=0, neginf=0) for label, wave in waves.items()}
    peak = max((float(np.abs(wave).max()) for wave in waves.values() if wave.size), default=0.0)
    top = max(float(spectrogram(wave, example.sample_rate).max()) for wave in waves.values())
    cells = []
    for label, wave in waves.items():
        image = _picture(label, wave, example.sample_rate, top, example.small) if pictures else ""
        sound = _sound(wave / max(peak, 1.0), example.sample_rate)
        cells.append(f"<figure><figcaption>{escape(label)}</figcaption>{image}{sound}</figure>")
    note = ""
    if peak > 1:
        note = f'<p class="note">Played {20 * math.log10(peak):.1f} dB lower: a result exceeds full scale.</p>'
    kind = "grid small" if example.small else "grid"
    return f'<h3>{escape(example.name)}</h3>{note}<div class="{kind}">{"".join(cells)}</div>'


def _picture(label: str, wave: np.ndarray, sample_rate: int, top_db: float, small: bool) -> str:
    if small:
        figure = thumbnail(wave, sample_rate, top_db)
    else:
        figure = spectrogram_figure({"": wave}, sample_rate, top_db=top_db, width=5.0)
    data = b64encode(png(figure)).decode()
    return f'<img alt="spectrogram of {escape(label)}" src="data:image/png;base64,{data}">'


def _sound(wave: np.ndarray, sample_rate: int) -> str:
    """A player of the wave `c n` as 16-bit FLAC."""
    import soundfile

    buffer = BytesIO()
    soundfile.write(buffer, wave.T, sample_rate, format="FLAC", subtype="PCM_16")
    data = b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>'


def _facts(summary: Mapping[str, Any]) -> str:
    """What the numbers are, so that another run can repeat them."""
    definitions = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(about['definition'])} Package: {escape(_package(about, summary))}.</dd>"
        for name, about in summary["metrics"].items()
    )
    packages = ", ".join(f"{name} {version or 'not installed'}" for name, version in summary["packages"].items())
    facts = {
        "Interval": summary["interval"],
        "Sample rates": ", ".join(f"{rate} Hz" for rate in summary["sample_rates_hz"]) or "none read",
        "Files, SHA-256": summary["file_list_sha256"],
        "Seed": summary["seed"],
        "Settings": ", ".join(f"{key} = {value}" for key, value in summary["settings"].items()) or "none",
        "Packages": packages,
        "Left out": "; ".join(summary["skipped"]) or "nothing",
    }
    listed = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items())
    return f"<h2>Definitions</h2><dl>{definitions}</dl><h2>How this was made</h2><dl>{listed}</dl>"


def _package(about: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    name = about["package"] or "fromnoise"
    return f"{name} {summary['packages'].get(name) or 'not installed'}"
