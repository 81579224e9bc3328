"""What all pages share: the frame, the style, tables. One file each, without network or script."""

from __future__ import annotations

import html
from collections.abc import Sequence

# Inks keep WCAG's contrast on paper and wash, in light and dark. Paper is always light: who reads dark still prints on white.
STYLE = """
:root{color-scheme:light;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--line:#d0d7de;--wash:#f6f8fa;--mark:31,111,235;--link:#0a58ca}
@media screen and (prefers-color-scheme:dark){:root{color-scheme:dark;
--ink:#e6edf3;--soft:#9aa4af;--paper:#0d1117;--line:#30363d;--wash:#161b22;--mark:88,150,255;--link:#79b0ff}}
*{box-sizing:border-box;print-color-adjust:exact;-webkit-print-color-adjust:exact}
body{margin:0 auto;max-width:1180px;padding:1.2rem;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;
overflow-wrap:break-word}
a{color:var(--link)}:focus-visible{outline:2px solid var(--link);outline-offset:2px}
h1{font-size:1.6rem;line-height:1.25;margin:.2rem 0 .6rem}
h2{font-size:1.2rem;margin:2.2rem 0 .8rem;padding-bottom:.2rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.4rem 0 .4rem}h1,h2,h3,figcaption,caption{overflow-wrap:anywhere}
p{margin:.4rem 0}.soft,figcaption,caption{color:var(--soft)}.big{font-size:2.2rem;font-weight:650}
.row{display:flex;flex-wrap:wrap;gap:.6rem 2.5rem;margin:.6rem 0}.row>*{min-width:0;max-width:100%}
.row:has(>figure){display:grid;grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr));gap:1rem 1.5rem}
figure{margin:0;min-width:0}figcaption{margin-bottom:.25rem}
.scroll{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}caption{text-align:left;padding:.2rem 0}
td,th{padding:.25rem .7rem;text-align:left;vertical-align:middle;border-bottom:1px solid var(--line)}
th{font-weight:600}th[scope=row]{font-weight:500;max-width:20rem;min-width:6rem}
th{white-space:normal;overflow-wrap:break-word}th[scope=col]{max-width:11rem}
td.num,.numbers th[scope=col]:not(:first-child){text-align:right}td.num{white-space:nowrap}
.cell{text-align:right;background:rgba(var(--mark),calc(var(--share)*.55))}
table.nowrap{white-space:nowrap}td.text{white-space:normal;overflow-wrap:anywhere;min-width:10rem}
svg{display:block;width:100%;height:auto;background:var(--wash);border-radius:6px}svg text{font:12px system-ui,sans-serif;fill:var(--soft)}
.grid{stroke:var(--line)}
.keys{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem;margin-top:.3rem}.keys>span{min-width:0;overflow-wrap:anywhere}
.keys svg{display:inline-block;width:1.6rem;height:.6rem;margin-right:.35rem;background:none;border-radius:0}
.shots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(250px,45%),1fr));gap:1rem;margin:.6rem 0}
.shots.wide{grid-template-columns:repeat(auto-fill,minmax(min(500px,100%),1fr))}
.shots img{width:100%;height:auto;border-radius:6px;display:block}
.shots figcaption{font-size:.85rem;margin-top:.25rem;overflow-wrap:anywhere}
pre{background:var(--wash);padding:.8rem;border-radius:6px;margin:0;width:max-content;min-width:100%;font-size:.85rem}
code{background:var(--wash);padding:0 .2rem;border-radius:3px}summary{cursor:pointer}
.warn{border-left:4px solid #b8860b;padding:.4rem .8rem;margin:.6rem 0;background:var(--wash);overflow-wrap:anywhere}
@media print{body{max-width:none;padding:0;font-size:12px}.scroll{overflow:visible}
pre{width:auto;white-space:pre-wrap;overflow-wrap:anywhere}
td,th{padding:.1rem .35rem}th[scope=col]{max-width:6rem}th[scope=row]{min-width:4rem;max-width:9rem}
figure,tr,.warn{break-inside:avoid}h2,h3,caption{break-after:avoid}
.shots{grid-template-columns:repeat(3,1fr)}.shots.wide{grid-template-columns:repeat(2,1fr)}}
"""


def document(title: str, body: str, style: str = "") -> str:
    """A whole page; ``title`` is text, ``body`` HTML, ``style`` rules besides :data:`STYLE`."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def scroll(content: str, name: str) -> str:
    """A table (or what else may be wider than the window) that scrolls sideways on its own, also by keyboard; ``name`` is read aloud."""
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{html.escape(name)}">{content}</div>'


def table(rows: Sequence[tuple[str, str]], number: bool = False, name: str = "Numbers") -> str:
    """A two-column table: a text, and HTML or a number."""
    kind = "num" if number else "text"
    body = "".join(f'<tr><th scope="row">{html.escape(key)}</th><td class="{kind}">{value}</td></tr>' for key, value in rows)
    return scroll(f"<table>{body}</table>", name)


def columns(names: Sequence[str]) -> str:
    """A row of column headings; "" is an empty corner."""
    return "<tr>" + "".join(f'<th scope="col">{html.escape(name)}</th>' if name else "<td></td>" for name in names) + "</tr>"
