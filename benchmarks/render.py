"""The benchmark's results as markdown."""

from typing import Any


def render(result: dict[str, Any]) -> str:
    capture_row, literal, command = result["capture"], result["literal"], result["command"]
    random_k, sizes, threads = result["random_k"], result["block_sizes"], result["threads"]
    sweeps = "\n".join(
        f"| `{name}` | {row['sweep_s']:.1f} | {row['limit_s']:.1f} | {row['ratio']:.2f} | {row['ratio_to_fastest']:.2f} | {row['first_point_s']:.1f} | "
        f"{row['share_run']:.1%} | {row['n_predictions_unlike_none']} | {row['loss_difference_mean']:.1e}, "
        f"{row['loss_difference_max']:.1e} |"
        for name, row in result["sweeps"].items()
    )
    memory = "; ".join(f"{row['mb_above_model']:.0f} MB with {row['n_images']:,} images" for row in result["memory"])
    growth = {
        name: ", ".join(f"{n:,}: {seconds:.1f} s" for n, seconds in rows) for name, rows in result["growth"].items()
    }
    return f"""# Benchmark results

Made by `{result["command_line"]}` on {result["machine"]}; {result["versions"]}.
{result["n_images"]:,} images, {result["n_k"]} values of K. GPU: {result["gpu"]}.

## The sweep against its limit

The limit is the matrix products behind the mixing layer for every image at every K, {result["limit_tflop"]:.1f} TFLOP, timed all through
the sweep; "fastest" is the ratio to the fastest of these timings.

| shortcut | sweep, s | limit, s | ratio | fastest | first point, s | images run | predictions unlike `none` | loss unlike, mean and most |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{sweeps}

Images whose two best scores differ by rounding alone, over all K: {result["sweeps"]["none"]["n_tied"]}.

## The same predictions

Against weights zeroed and the whole network run, at 20 random K ({", ".join(map(str, random_k["k"]))}): {random_k["n_unlike"]} of
{random_k["n_predictions"]:,} predictions unlike, {random_k["n_tied_of_unlike"]} of these at images whose two best scores differ by rounding
alone. In blocks of {", ".join(sizes)} images, all K of the first {max(map(int, sizes))} images: {", ".join(map(str, sizes.values()))} predictions unlike blocks of
2,000. On 1 and 2 threads ({threads["one_s"]:.0f} and {threads["two_s"]:.0f} s for the command with every eighth K): {threads["n_unlike"]} of {threads["n_predictions"]:,} unlike.

## The capture pass

{capture_row["capture_s"]:.1f} s; `model.predict` on the same images in the same batches {capture_row["predict_s"]:.1f} s: {capture_row["ratio"]:.2f}
times. (The whole network called in the capture's own way: {capture_row["whole_network_s"]:.1f} s.)

## The whole command against the reports' loop

Literal loop (weights zeroed, whole network run to rank and again to evaluate): {literal["s_per_k"]:.1f} s a K at K = {literal["k"]},
{literal["extrapolated_s"] / 3600:.2f} h for all. Correct there: {literal["correct"]}; predictions of the sweep unlike: {literal["n_predictions_unlike"]}.

`lab3 sweep`, from loading to summary, journal and offline W&B on: {command["command_s"]:.1f} s, {command["literal_over_command"]:.0f} times faster.
Capture {command["capture_s"]:.1f} s, sweep {command["sweep_s"]:.1f} s. Journal and tracking of all points: {command["record_s"]:.2f} s,
{command["record_share_of_sweep"]:.2%} of the sweep.

## Memory and growth

Peak above the loaded model, capture and 72 K in a process of its own: {memory}.

Seconds without shortcut over images (40 K): {growth["images"]}. Over K: {growth["k"]}.
"""
