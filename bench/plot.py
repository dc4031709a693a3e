"""A plot of bench/memory.py's rows, as SVG: decode speed and KV memory against context length."""
import math

PANEL_W, PANEL_H, LEFT, GAP, TOP = 380, 300, 60, 80, 40
LEGEND_H = 96
# By hue: what it is; dashed: quantised KV or ratio 32. Told apart by colour-blind eyes (Okabe and Ito).
STYLES = {
    "full, f16": ("#0072b2", ""), "full, q8_0": ("#0072b2", "6 4"),
    "select, ratio 8": ("#d55e00", ""), "select, ratio 32": ("#d55e00", "6 4"),
    "fine-kv, ratio 8": ("#009e73", ""), "fine-kv, ratio 32": ("#009e73", "6 4"),
    "llama.cpp full, f16": ("#333333", ""), "llama.cpp full, q8_0": ("#333333", "6 4"),
}


class Axis:
    """Logarithmic when log, from lo to hi in pixels from a to b."""

    def __init__(self, lo, hi, a, b, log):
        self.lo, self.hi, self.a, self.b, self.log = lo, hi, a, b, log

    def at(self, v):
        f = (lambda x: math.log2(x)) if self.log else (lambda x: x)
        return self.a + (self.b - self.a) * (f(v) - f(self.lo)) / (f(self.hi) - f(self.lo))


def text(x, y, what, anchor="middle", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{what}</text>'


def grid_line(x1, y1, x2, y2):
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#dddddd"/>'


def frame(title, x, y, xs, ys, number):
    """Title, grid lines and their numbers."""
    out = [text((x.a + x.b) / 2, TOP - 16, title, more=' font-weight="bold"')]
    for v in ys:
        out += [grid_line(x.a, y.at(v), x.b, y.at(v)), text(x.a - 6, y.at(v) + 4, number(v), "end")]
    for v in xs:
        out += [grid_line(x.at(v), y.a, x.at(v), y.b), text(x.at(v), y.a + 18, f"{v // 1024}K")]
    out.append(text((x.a + x.b) / 2, y.a + 36, "tokens of context"))
    return out


def curves(rows, x, y, value):
    out = []
    for row in reversed(rows):      # ours lie on top
        colour, dash = STYLES[row.name]
        points = [(x.at(row.depth(d)), y.at(value(row, d))) for d in row.depths()]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        out += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in points]
    return out


def legend(rows, top, width):
    out, columns = [], 4
    for i, row in enumerate(rows):
        colour, dash = STYLES[row.name]
        x, y = LEFT + i % columns * (width - LEFT) / columns, top + i // columns * 22
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        out.append(f'<path d="M{x:.1f} {y - 4:.1f}h30" stroke="{colour}" stroke-width="2"{dashes}/>')
        out.append(text(x + 36, y, row.name, "start"))
    return out


def steps(top):
    """Some round numbers from 0 to top."""
    step = next(s for s in (10, 20, 50, 100, 200, 500, 1000) if top / s <= 6)
    return list(range(0, int(top) + step, step))


def draw(rows):
    mib = 1 << 20
    width, bottom = LEFT + 2 * PANEL_W + GAP + 20, TOP + PANEL_H
    depths = sorted({d for row in rows for d in row.depths()})
    speeds = steps(max(row.speed(d) for row in rows for d in row.depths()))
    sizes = [row.bytes[d] / mib for row in rows for d in row.depths()]
    powers = [2.0 ** p for p in range(math.floor(math.log2(min(sizes))), math.ceil(math.log2(max(sizes))) + 1)]
    x1 = Axis(depths[0], depths[-1], LEFT, LEFT + PANEL_W, True)
    x2 = Axis(depths[0], depths[-1], LEFT + PANEL_W + GAP, LEFT + 2 * PANEL_W + GAP, True)
    y1, y2 = Axis(0, speeds[-1], bottom, TOP, False), Axis(powers[0], powers[-1], bottom, TOP, True)
    parts = frame("decode speed, tokens/s", x1, y1, depths, speeds, str)
    parts += frame("KV of the session, MiB", x2, y2, depths, powers, lambda v: f"{v:g}")
    parts += curves(rows, x1, y1, lambda row, d: row.speed(d))
    parts += curves(rows, x2, y2, lambda row, d: row.bytes[d] / mib)
    parts += legend(rows, bottom + 64, width)
    height = bottom + LEGEND_H
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                      f'height="{height}" font-family="sans-serif" font-size="12" fill="#222222">',
                      f'<rect width="{width}" height="{height}" fill="#ffffff"/>', *parts, "</svg>", ""])
