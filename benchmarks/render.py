"""The benchmark's results as markdown: a section for each part that was measured."""

from typing import Any


def render(result: dict[str, Any]) -> str:
    head = f"""# Benchmark results

Made by `{result["command_line"]}` on {result["machine"]}; {result["versions"]}.
{result["n_images"]:,} images, {result["n_k"]} values of K. GPU: {result["gpu"]}.
"""
    sections = {
        "sweeps": _sweeps,
        "random_k": _same_predictions,
        "capture": _capture,
        "command": _command,
        "analysis": _analysis,
        "memory": _memory,
    }
    needs = {"random_k": ("block_sizes", "threads"), "command": ("literal",), "memory": ("growth",)}
    parts = [
        section(result)
        for name, section in sections.items()
        if name in result and all(need in result for need in needs.get(name, ()))
    ]
    return "\n".join([head, *parts])


def _sweeps(result: dict[str, Any]) -> str:
    rows = dict(result["sweeps"])
    honest = rows.pop("honest loop")
    literal = result.get("literal", {}).get("extrapolated_s")

    def over_literal(row: dict[str, Any]) -> str:
        return f"{literal / row['sweep_s']:,.0f}" if literal else "not measured"

    table = "\n".join(
        f"| `{name}` | {row['sweep_s']:.1f} | {row['ratio']:.2f} | {row['ratio_to_fastest']:.2f} | "
        f"{row['honest_over_sweep']:.2f} | {over_literal(row)} | {row['first_point_s']:.1f} | {row['share_run']:.1%} | "
        f"{row['n_inferred']:,} | {row['n_predictions_unlike_none']} |"
        for name, row in rows.items()
    )
    inferred = rows["inferred"]
    return f"""## The sweep against its limit, the best honest loop and the literal loop

The limit is the matrix products behind the mixing layer for every image at every K, {result["limit_tflop"]:.1f} TFLOP, timed all through
the sweep; "fastest" is the ratio to the fastest of these timings. The best honest loop keeps the pruned layer's output, compiles
what follows, and runs all images at every K in blocks of 2,000; it carries nothing from one K to the next and leaves no image
out. The literal loop is the reports'. `inferred` is not exact: see the README.

| shortcut | sweep, s | limits | fastest | honest loop takes, times | literal loop takes, times | first point, s | images run | inferred | predictions unlike `none` |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{table}
| honest loop | {honest["sweep_s"]:.1f} | {honest["ratio"]:.2f} | | 1 | {over_literal(honest)} | | 100.0% | 0 | {honest["n_predictions_unlike_none"]} |

Images whose two best scores differ by rounding alone, over all K: {rows["none"]["n_tied"]}. The loss of `inferred` is unlike that of
`none` by {inferred["loss_difference_mean"]:.1e} in the mean and {inferred["loss_difference_max"]:.1e} at most; its largest standard error is {inferred["loss_se_max"]:.1e}. That of
`unchanged`: {rows["unchanged"]["loss_difference_max"]:.1e} at most.
"""


def _same_predictions(result: dict[str, Any]) -> str:
    random_k, sizes, threads = result["random_k"], result["block_sizes"], result["threads"]
    return f"""## The same predictions

`unchanged` against weights zeroed and the whole network run, at {len(random_k["k"])} random K ({", ".join(map(str, random_k["k"]))}): {random_k["n_unlike"]} of
{random_k["n_predictions"]:,} predictions unlike, {random_k["n_tied_of_unlike"]} of these at images whose two best scores differ by rounding
alone. In blocks of {", ".join(sizes)} images, all K of the first {max(map(int, sizes))} images: {", ".join(map(str, sizes.values()))} predictions unlike blocks of
2,000. On 1 and 2 threads ({threads["one_s"]:.0f} and {threads["two_s"]:.0f} s for the command with every eighth K): {threads["n_unlike"]} of {threads["n_predictions"]:,} unlike.
"""


def _capture(result: dict[str, Any]) -> str:
    row = result["capture"]
    return f"""## The capture pass

{row["capture_s"]:.1f} s; `model.predict` on the same images in the same batches {row["predict_s"]:.1f} s: {row["ratio"]:.2f}
times. (The whole network called in the capture's own way: {row["whole_network_s"]:.1f} s.)
"""


def _command(result: dict[str, Any]) -> str:
    literal, command = result["literal"], result["command"]
    return f"""## The whole command against the reports' loop

Literal loop (weights zeroed, whole network run to rank and again to evaluate): {literal["s_per_k"]:.1f} s a K at K = {literal["k"]},
{literal["extrapolated_s"] / 3600:.2f} h for all. Correct there: {literal["correct"]}; predictions of the sweep unlike: {literal["n_predictions_unlike"]}.

`lab3 sweep`, exact, from loading to summary, journal and offline W&B on: {command["command_s"]:.1f} s, {command["literal_over_command"]:.0f} times faster.
Capture {command["capture_s"]:.1f} s, sweep {command["sweep_s"]:.1f} s. Journal and tracking of all points: {command["record_s"]:.2f} s,
{command["record_share_of_sweep"]:.2%} of the sweep.
"""


def _analysis(result: dict[str, Any]) -> str:
    row = result["analysis"]
    scale = result["n_images"] / row["n_images"]
    return f"""## Every layer at ten ratios, in the manner of AIMET

{row["n_layers"]} layers, {row["n_evaluations"]} evaluations, channels of the smallest L1 norm pruned. On {row["n_images"]:,} images the whole network at each takes
{row["whole_network_s"]:.0f} s, lab3 with its one pass for all layers {row["lab3_s"]:.0f} s: {row["whole_network_s"] / row["lab3_s"]:.2f} times. Extrapolated to {result["n_images"]:,} images: {scale * row["whole_network_s"]:,.0f} and {scale * row["lab3_s"]:,.0f} s.
Counts unlike: {row["n_counts_unlike"]}.
"""


def _memory(result: dict[str, Any]) -> str:
    memory = "; ".join(f"{row['mb_above_model']:.0f} MB with {row['n_images']:,} images" for row in result["memory"])
    growth = {
        name: ", ".join(f"{n:,}: {seconds:.1f} s" for n, seconds in rows) for name, rows in result["growth"].items()
    }
    return f"""## Memory and growth

Peak above the loaded model, capture and 72 K, exact, in a process of its own: {memory}.

Seconds without shortcut over images (40 K): {growth["images"]}. Over K: {growth["k"]}.
"""
