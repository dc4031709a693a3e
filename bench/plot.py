"""Plots as SVG, readable on dark pages as on light ones: what all of them are made of, and bench/memory.py's rows as
decode speed and KV memory against context length."""
import math

PANEL_W, PANEL_H, LEFT, GAP, TOP = 380, 300, 60, 80, 40
LEGEND_H = 96
# name, on white, on black. Told apart by colour-blind eyes (Okabe and Ito).
COLOURS = (("blue", "#0072b2", "#56b4e9"), ("red", "#d55e00", "#ff9a5c"), ("green", "#009e73", "#3ccf9f"),
           ("grey", "#555555", "#b0b0b0"))
# By hue: what it is; dashed: quantised KV or ratio 32.
STYLES = {
    "full, f16": ("blue", ""), "full, q8_0": ("blue", "6 4"),
    "select, ratio 8": ("red", ""), "select, ratio 32": ("red", "6 4"),
    "fine-kv, ratio 8": ("green", ""), "fine-kv, ratio 32": ("green", "6 4"),
    "llama.cpp full, f16": ("grey", ""), "llama.cpp full, q8_0": ("grey", "6 4"),
}


class Axis:
    """Logarithmic when log, from lo to hi in pixels from a to b."""

    def __init__(self, lo, hi, a, b, log):
        self.lo, self.hi, self.a, self.b, self.log = lo, hi, a, b, log

    def at(self, v):
        f = (lambda x: math.log2(x)) if self.log else (lambda x: x)
        return self.a + (self.b - self.a) * (f(v) - f(self.lo)) / (f(self.hi) - f(self.lo))


def css(paper, ink, grid, which):
    return (f"svg{{fill:{ink}}}.paper{{fill:{paper}}}.grid{{stroke:{grid}}}" +
            "".join(f".{c[0]}{{color:{c[which]}}}" for c in COLOURS))


def document(title, width, height, parts):
    """As who looks at it has set the system: an <img> takes no colours from its page, so it has a paper of its own."""
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                      f'height="{height}" font-family="sans-serif" font-size="12" role="img">',
                      f"<title>{title}</title>",
                      f'<style>{css("#ffffff", "#222222", "#dddddd", 1)}@media(prefers-color-scheme:dark)'
                      f'{{{css("#14161a", "#d8dee9", "#3b4048", 2)}}}</style>',
                      f'<rect class="paper" width="{width}" height="{height}"/>', *parts, "</svg>", ""])


def text(x, y, what, anchor="middle", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{what}</text>'


def grid_line(x1, y1, x2, y2):
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" class="grid"/>'


def frame(title, x, y, xs, ys, number):
    """Title, grid lines and their numbers."""
    out = [text((x.a + x.b) / 2, TOP - 16, title, more=' font-weight="bold"')]
    for v in ys:
        out += [grid_line(x.a, y.at(v), x.b, y.at(v)), text(x.a - 6, y.at(v) + 4, number(v), "end")]
    for v in xs:
        out += [grid_line(x.at(v), y.a, x.at(v), y.b), text(x.at(v), y.a + 18, f"{v // 1024}K")]
    out.append(text((x.a + x.b) / 2, y.a + 36, "tokens of context"))
    return out


def stroke(path, style):
    colour, dash = style
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="{path}" class="{colour}" fill="none" stroke="currentColor" stroke-width="2"{dashes}/>'


def curve(points, style):
    """A line through points in pixels."""
    path = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
    return [stroke("M" + path, style)] + [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" class="{style[0]}" fill="currentColor"/>'
                                          for px, py in points]


def curves(rows, x, y, value):
    out = []
    for row in reversed(rows):      # ours lie on top
        out += curve([(x.at(row.depth(d)), y.at(value(row, d))) for d in row.depths()], STYLES[row.name])
    return out


def legend(styles, top, width, columns=4):
    """styles: by name, in order."""
    out = []
    for i, (name, style) in enumerate(styles.items()):
        x, y = LEFT + i % columns * (width - LEFT) / columns, top + i // columns * 22
        out += [stroke(f"M{x:.1f} {y - 4:.1f}h30", style), text(x + 36, y, name, "start")]
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
    parts += legend({row.name: STYLES[row.name] for row in rows}, bottom + 64, width)
    return document("Decode speed and KV memory against context length", width, bottom + LEGEND_H, parts)
