# SPDX-License-Identifier: GPL-2.0
"""What 'make bench' leaves behind: the figures as text and JSON, plots of them, and what
got worse since those that are committed."""

import json
import subprocess

from common import ENVIRONMENT, REPO, Trouble, have, write_if_changed

WHERE = REPO / "Documentation/vm/bench"
# By how much an exact figure may grow before it is named.
GROWTH = 1.02

# (file, title, x, figures)
PLOTS = (
    ("subscriptions", "An invalidation, against subscriptions of the process",
     "interval subscriptions", ("bracket-elsewhere", "bracket-hit")),
    ("pairs", "read_begin() + read_retry(), against subscriptions",
     "interval subscriptions", ("read_begin+read_retry",)),
    ("range", "Snapshot of pages of 4 KiB, against the size of the range",
     "pages of the range", ("snapshot-4k",)),
    ("vmas", "Snapshot of 2048 pages, against the VMAs that they lie in", "VMAs",
     ("snapshot-4k-vmas",)),
    ("huge", "Snapshot of huge pages, against their number", "pages of 2 MiB",
     ("snapshot-thp", "snapshot-thp-extents")),
)


def committed():
    """The figures of the last commit, or None."""
    done = subprocess.run(["git", "-C", REPO, "show", f"HEAD:{WHERE.relative_to(REPO)}/"
                           "bench.json"], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def worse(kept, before):
    """Exact figures of ours that grew too much; those that are gone, too."""
    if not before:
        return []
    found = []
    now = kept["exact"]["ours"]
    for name, (value, _) in before["exact"]["ours"].items():
        if name not in now:
            found.append(f"{name}: gone, was {value}")
        elif now[name][0] > value * GROWTH + 0.01:
            found.append(f"{name}: {now[name][0]}, was {value}")
    return found


def series(kept, what):
    """{label: [(x, y)]} of the figures WHAT/x, of both kernels."""
    found = {}
    for kernel in ("stock", "ours"):
        for stem in what:
            points = sorted((int(name.rpartition("/")[2]), value)
                            for name, (value, _) in kept["exact"][kernel].items()
                            if name.rpartition("/")[0] == stem)
            if points:
                found[f"{stem}, {kernel}"] = points
    return found


def tidy(text):
    """Without blanks at the ends of lines, which no patch may have."""
    return ("\n".join(line.rstrip() for line in text.rstrip().split("\n")) + "\n").encode()


def gnuplot(path, commands):
    """One SVG. Its ground is white, whatever the page's is."""
    head = ["set terminal svg size 720,420 noenhanced background '#ffffff' "
            "font 'sans-serif,13'", "set grid"]
    done = subprocess.run(["gnuplot"], input="\n".join([*head, *commands]) + "\n",
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise Trouble(ENVIRONMENT, "gnuplot: " + done.stderr.strip()[-500:])
    write_if_changed(path, tidy(done.stdout))


def data(label, points):
    return [f"${label} << END", *(" ".join(map(str, point)) for point in points), "END"]


def plot_lines(path, title, x, y, lines):
    """Figures against a number, a line each."""
    commands = [f"set title '{title}'", f"set xlabel '{x}'", f"set ylabel '{y}'",
                "set key outside below", "set yrange [0:*]", "set logscale x 2"]
    for number, points in enumerate(lines.values()):
        commands += data(f"d{number}", points)
    commands.append("plot " + ", ".join(
        f"$d{number} using 1:2 with linespoints linewidth 2 title '{label}'"
        for number, label in enumerate(lines)))
    gnuplot(path, commands)


def plot_ratios(path, kept, wanted):
    """Each row that has a target, as a share of stock's figure."""
    stock, ours = kept["exact"]["stock"], kept["exact"]["ours"]
    rows = [(ours[name][0] / stock[name][0], wanted[name] / stock[name][0], name)
            for name in wanted if name in ours and stock.get(name, (0,))[0]]
    points = [(number, ratio, goal, f'"{name}"')
              for number, (ratio, goal, name) in enumerate(rows)]
    gnuplot(path, ["set title 'Ours, as a share of stock'", "set yrange [0:1.1]",
                   "set xtics rotate by -40", "set boxwidth 0.7",
                   "set style fill solid 0.6", "set key outside right top",
                   *data("d", points),
                   "plot $d using 1:2:xtic(4) with boxes title 'ours', "
                   "$d using 1:3 with points pt 7 title 'target', 1 linewidth 2 title 'stock'"])


def crowd_ratios(kept):
    """Throughput of ours as a multiple of stock's, against CPUs."""
    found = {}
    stock = kept["crowd"].get("stock", {})
    for name, (value, _) in kept["crowd"]["ours"].items():
        stem, _, cpus = name.rpartition("/")
        if stock.get(name, (0,))[0]:
            found.setdefault(stem, []).append((int(cpus), value / stock[name][0]))
    return {label: sorted(points) for label, points in sorted(found.items())}


def write(kept, text, wanted):
    """All of it, to the manual."""
    if not have("gnuplot"):
        raise Trouble(ENVIRONMENT, "gnuplot is missing: run 'make deps-all'")
    WHERE.mkdir(parents=True, exist_ok=True)
    write_if_changed(WHERE / "bench.json", (json.dumps(kept, indent=1) + "\n").encode())
    write_if_changed(WHERE / "bench.txt", tidy("\n".join(text)))
    plot_ratios(WHERE / "targets.svg", kept, wanted)
    for name, title, x, what in PLOTS:
        plot_lines(WHERE / f"{name}.svg", title, x, "instructions", series(kept, what))
    plot_lines(WHERE / "cpus.svg", "Throughput with several CPUs at work", "CPUs",
               "ours, as a multiple of stock", crowd_ratios(kept))
