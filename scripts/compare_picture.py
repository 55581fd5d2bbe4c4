"""compare_picture.py: the curves of compare_loss.py and their differences, drawn and in a sentence. A member has a
run, a label, a backend and noise."""

import math

from runlog import COLORS, draw_loss, explain_smoothing, half_window, save_picture, smooth

BACKENDS = ("ring", "magi", "allgather", "ulysses")
DASHES = ("-", (0, (5, 2)), (0, (1, 1)), (0, (5, 1, 1, 1)))


def differences(run, base):
    """{step: loss - loss of the base} where both have the step."""
    return {step: record["loss"] - base.steps[step]["loss"]
            for step, record in run.steps.items() if step in base.steps}


def greatest(members, base):
    """(absolute difference, step, member) of the curve that is furthest from the base; None: there is no other."""
    found = [(abs(d), step, m) for m in members if m is not base and not m.noise
             for step, d in differences(m.run, base.run).items() if math.isfinite(d)]
    return max(found, key=lambda f: f[0], default=None)


def sentence(members, base):
    """What the picture shows."""
    found = greatest(members, base)
    if not found:
        return f"There is nothing to hold against {base.label}."
    most, step, member = found
    if most == 0:
        return f"Every loss is that of {base.label} to the last bit."
    loss = base.run.steps[step]["loss"]
    return f"The greatest difference to {base.label} is {most:.1e} nats ({member.label}, step {step}, loss {loss:.3f})."


def noise_band(member, base, half):
    """(steps, the greatest difference within `half` steps): as far as rounding alone leads."""
    diff = differences(member.run, base.run)
    sizes = [abs(d) for d in diff.values()]
    return list(diff), [max(sizes[max(0, i - half):i + half + 1]) for i in range(len(sizes))]


def label(member, longest):
    """A curve that ends before the others says so."""
    last = member.run.last()
    return member.label + (f", ends at step {last}" if last < longest else "")


def mark_end(axes, x, y, color, longest):
    if x and x[-1] < longest:
        axes.plot(x[-1:], y[-1:], "|", color=color, markersize=12, markeredgewidth=1.5)


def draw_differences(axes, members, base, longest, half):
    """Their sizes on a logarithmic scale, which has no place for 0: a gap."""
    sizes = []
    for i, member in enumerate(members):
        if member is base:
            continue
        if member.noise:
            x, band = noise_band(member, base, max(half, 2))
            axes.fill_between(x, 0, band, color="0.85", zorder=0,
                              label=f"rounding alone: {label(member, longest)}")
            sizes += band
            continue
        diff = differences(member.run, base.run)
        x, y = list(diff), [abs(d) or math.nan for d in diff.values()]
        axes.plot(x, y, color=COLORS[i % len(COLORS)], linestyle=dashes(member), linewidth=1, label=label(member, longest))
        mark_end(axes, x, y, COLORS[i % len(COLORS)], longest)
        sizes += y
    sizes = [s for s in sizes if math.isfinite(s) and s > 0]
    if sizes:
        axes.set_yscale("log")
        axes.set_ylim(max(min(sizes), max(sizes) * 1e-6) / 2, max(sizes) * 100)  # room for the legend
        axes.legend(loc="upper left", ncols=3, fontsize=8)
    axes.set(title=f"Size of the difference to {base.label}", ylabel="nats", xlabel="step")


def dashes(member):
    return DASHES[BACKENDS.index(member.backend) if member.backend in BACKENDS else 2]


def draw(plt, args, members, base, out):
    figure, (top, low) = plt.subplots(2, 1, sharex=True, figsize=(10, 8), layout="constrained",
                                      gridspec_kw={"height_ratios": (1.6, 1)})
    longest = max(member.run.last() for member in members)
    half = half_window(max(len(member.run.steps) for member in members))
    for i, member in enumerate(members):
        if member is base:  # wide, under the others
            draw_loss(top, member.run, "0.75", member.label, half, linewidth=6, zorder=0)
        elif not member.noise:
            draw_loss(top, member.run, COLORS[i % len(COLORS)], label(member, longest), half, linestyle=dashes(member))
            x, loss = member.run.series("loss")
            mark_end(top, x, smooth(loss, half), COLORS[i % len(COLORS)], longest)
    top.set(title=f"Loss ({args.config.name}). {sentence(members, base)}", ylabel="cross entropy per token (nats)")
    explain_smoothing(top, half)
    top.legend()
    draw_differences(low, members, base, longest, half)
    low.xaxis.get_major_locator().set_params(integer=True)
    save_picture(figure, out)
