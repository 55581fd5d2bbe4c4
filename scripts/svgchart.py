"""svgchart.py: charts of lines and of areas as SVG elements, for report.py. Colours are CSS classes: run N is of class
rN, part N of a whole of class pN."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 34, 40
MOST_POINTS = 600  # of a line; of more, the lowest and highest of each group are drawn, and gaps


def nice_step(span, count):
    """1, 2 or 5 times a power of ten, so that a span has about `count` steps."""
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)


def linear_ticks(low, high, count):
    step = nice_step(high - low, count)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low, high):
    a, b = math.floor(math.log10(low)), math.ceil(math.log10(high))
    marks = (1, 2, 5) if b - a <= 3 else (1,)
    return [m * 10.0 ** k for k in range(a, b + 1) for m in marks if low <= m * 10.0 ** k <= high]


def short(value):
    """4 digits at most: 1.2e-05, 0.02, 350, 12k, 1.5M"""
    for limit, unit in (1e9, "G"), (1e6, "M"), (1e4, "k"):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.4g}{unit}"
    return f"{value:.4g}"


def thin(points):
    """At most MOST_POINTS points that keep every peak: the lowest and highest of each group."""
    size = math.ceil(2 * len(points) / MOST_POINTS)
    if size <= 2:
        return points
    out = []
    for i in range(0, len(points), size):
        group = points[i:i + size]
        finite = [p for p in group if math.isfinite(p[1])]
        kept = {min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1])} if finite else set()
        out += sorted(kept | {p for p in group if not math.isfinite(p[1])})
    return out


class Axes:
    """What a chart shows is from x_low to x_high, y_low to y_high."""

    title = unit = ""
    log = False
    bottom, height = HEIGHT - BOTTOM, HEIGHT

    def x(self, value):
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value):
        if self.log:
            share = math.log(value / self.y_low) / math.log(self.y_high / self.y_low)
        else:
            share = (value - self.y_low) / (self.y_high - self.y_low)
        return self.bottom - share * (self.bottom - TOP)

    def axes(self):
        ticks = log_ticks(self.y_low, self.y_high) if self.log else linear_ticks(self.y_low, self.y_high, 5)
        for value in ticks:
            at = self.y(value)
            yield f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>'
            yield f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{short(value)}</text>'
        for value in linear_ticks(self.x_low, self.x_high, 6):
            if value == int(value):
                yield (f'<text class="tick" x="{self.x(value):.1f}" y="{self.bottom + 18}" '
                       f'text-anchor="middle">{short(value)}</text>')
        yield f'<path class="axis" d="M{LEFT} {TOP}V{self.bottom}H{WIDTH - RIGHT}"/>'
        yield (f'<text class="tick" x="{WIDTH - RIGHT}" y="{self.bottom + 34}" text-anchor="end">step</text>')

    def frame(self, content):
        unit = f'<tspan class="tick" dx="8">{escape(self.unit)}</tspan>' if self.unit else ""
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" role="img">',
            f"<title>{escape(self.title)}</title>",
            f'<text class="title" x="{LEFT}" y="20">{escape(self.title)}{unit}</text>', *content, "</svg>"])


class Chart(Axes):
    """Lines and dots over steps, with axes that fit them."""

    def __init__(self, title, unit="", zero=False, log=False):
        self.title, self.unit, self.zero, self.log = title, unit, zero, log
        self.lines, self.dots = [], []  # (class, points), (class, points, label)

    def line(self, run, x, y, faint=False):
        self.lines.append((f"r{run}{' faint' if faint else ''}", list(zip(x, y))))

    def dot(self, run, x, y):
        self.dots.append((f"r{run}", list(zip(x, y))))

    def finite(self):
        return [p for _, points in self.lines + self.dots for p in points
                if math.isfinite(p[1]) and (p[1] > 0 or not self.log)]

    def fit(self):
        points = self.finite()
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        self.x_low, self.x_high = min(xs), max(xs)
        if self.x_low == self.x_high:
            self.x_low, self.x_high = self.x_low - 1, self.x_high + 1
        low, high = min(ys), max(ys)
        if self.log:
            self.y_low, self.y_high = low / 1.1, high * 1.1
        else:
            low = min(low, 0) if self.zero else low
            margin = 0.05 * (high - low) or abs(high) * 0.05 or 1
            self.y_low, self.y_high = low - (0 if self.zero and low == 0 else margin), high + margin

    def drawable(self, value):
        return math.isfinite(value) and (value > 0 or not self.log)

    def path(self, points):
        """Gaps where a value is not finite."""
        words, pen = [], "M"
        for x, y in thin(points):
            if self.drawable(y):
                words.append(f"{pen}{self.x(x):.1f} {self.y(y):.1f}")
                pen = "L"
            else:
                pen = "M"
        return "".join(words)

    def svg(self):
        """An element, or '' where there is nothing to draw."""
        if not self.finite():
            return ""
        self.fit()
        parts = [f'<path class="line {name}" d="{self.path(points)}"/>' for name, points in self.lines]
        for name, points in self.dots:
            parts += [f'<circle class="dot {name}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="4">'
                      f"<title>step {x}: {y:.6g}</title></circle>" for x, y in points if self.drawable(y)]
        return self.frame([*self.axes(), *parts])


class Stack(Axes):
    """Areas on top of each other over steps: what a whole is made of. Part N is of class pN."""

    MOST_COLUMNS = 160  # of more steps, groups are drawn as their mean
    LEGEND_ROW, LEGEND_COLUMNS = 18, 5

    def __init__(self, title, unit, x, parts):
        """parts: {name: values}, a value for each x."""
        self.title, self.unit = title, unit
        size = math.ceil(len(x) / self.MOST_COLUMNS)
        self.steps = [x[min(i + size, len(x)) - 1] for i in range(0, len(x), size)]
        self.parts = {name: [self.mean(values[i:i + size]) for i in range(0, len(x), size)]
                      for name, values in parts.items()}
        self.height = HEIGHT + 14 + math.ceil(len(parts) / self.LEGEND_COLUMNS) * self.LEGEND_ROW
        self.x_low, self.x_high = self.steps[0], max(self.steps[-1], self.steps[0] + 1)
        self.y_low, self.y_high = 0, max(map(sum, zip(*self.parts.values()))) * 1.05 or 1

    @staticmethod
    def mean(values):
        finite = [v for v in values if math.isfinite(v)]
        return sum(finite) / len(finite) if finite else 0

    def areas(self):
        below = [0.0] * len(self.steps)
        for i, (name, values) in enumerate(self.parts.items()):
            above = [b + v for b, v in zip(below, values)]
            edge = [f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in zip(self.steps, above)]
            edge += [f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in zip(self.steps[::-1], below[::-1])]
            yield f'<path class="area p{i}" d="M{"L".join(edge)}Z"><title>{escape(name)}</title></path>'
            below = above

    def legend(self):
        width = (WIDTH - LEFT - RIGHT) / self.LEGEND_COLUMNS
        for i, name in enumerate(self.parts):
            x = LEFT + i % self.LEGEND_COLUMNS * width
            y = self.bottom + 56 + i // self.LEGEND_COLUMNS * self.LEGEND_ROW
            yield f'<rect class="area p{i}" x="{x:.1f}" y="{y - 10}" width="11" height="11" rx="2"/>'
            yield f'<text class="tick" x="{x + 16:.1f}" y="{y}">{escape(name)}</text>'

    def svg(self):
        return self.frame([*self.axes(), *self.areas(), *self.legend()])
