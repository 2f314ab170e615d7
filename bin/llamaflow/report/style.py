"""The report's look: quieter than MultiQC's own, and legible in its light and its dark mode."""

CSS = """
:root { --lf-accent: #0f9d8a; --lf-trial: #4c6ef5; --lf-muted: var(--bs-secondary-color, #6c757d); --lf-line: rgba(128, 128, 128, .25); --lf-soft: rgba(128, 128, 128, .07); }
.multiqc-logo-wrapper, .side-nav-logo, .mqc-toolbox-buttons, #mqc_welcome, #mqc-toolbox, .ai-copy-button-wrapper, .mobile-nav-toolbox-btns,
#mqc-nav-header > a, .mqc-table-to-violin, .mqc_table_make_scatter { display: none !important; }
h1#page_title { display: none; }
.mainpage > div { max-width: 1360px; margin: 0 auto; }
.mainpage h1 { font-weight: 700; letter-spacing: -.01em; line-height: 1.2; margin-top: .5rem; }
.mainpage h1 small { font-size: 1.05rem; font-weight: 400; color: var(--lf-muted); letter-spacing: 0; }
.mainpage h2 { font-weight: 650; font-size: 1.5rem; letter-spacing: -.01em; }
.mqc-module-section { padding-top: .75rem; }
.mqc-module-section-first > p { max-width: 62rem; color: var(--lf-muted); }
.mainpage p.lead { font-size: 1.05rem; font-weight: 400; }
.mqc_table { font-size: .82rem; } .mqc-section-leaderboard .mqc_table td { white-space: nowrap; } .mqc_table th.rowheader { font-weight: 550 !important; } .mqc_table .badge { font-weight: 600; }
.side-nav-title { padding-top: 1rem; }

.lf-verdict { border: 1px solid var(--lf-line); border-left: 6px solid var(--lf-tone); border-radius: 10px; padding: 1.4rem 1.6rem; margin: .5rem 0 1rem; background: var(--lf-soft); }
.lf-verdict.lf-yes { --lf-tone: #0f9d8a; } .lf-verdict.lf-no { --lf-tone: #e8890c; } .lf-verdict.lf-none { --lf-tone: #d6336c; }
.lf-pill { display: inline-block; background: var(--lf-tone); color: #fff; border-radius: 999px; padding: .15rem .8rem; font-size: .8rem; font-weight: 650; letter-spacing: .02em; }
.lf-headline { font-size: 1.5rem; font-weight: 650; line-height: 1.3; margin: .7rem 0 .5rem; letter-spacing: -.01em; }
.lf-verdict p { margin: 0 0 .5rem; max-width: 60rem; }
.lf-cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: .8rem; margin-top: 1.1rem; }
.lf-card { background: var(--bs-body-bg, #fff); border: 1px solid var(--lf-line); border-radius: 8px; padding: .7rem .85rem; }
.lf-card .lf-label { color: var(--lf-muted); font-size: .8rem; }
.lf-card .lf-figure { font-size: 1.15rem; font-weight: 650; letter-spacing: -.02em; line-height: 1.35; white-space: nowrap; }
.lf-card .lf-note { color: var(--lf-muted); font-size: .8rem; line-height: 1.35; }
.lf-chip { display: inline-block; border: 1px solid var(--lf-line); border-radius: 6px; padding: .05rem .5rem; margin: 0 .3rem .3rem 0; font-size: .82rem; background: var(--bs-body-bg, #fff); }
.lf-id { font-family: var(--bs-font-monospace, monospace); font-size: .9em; overflow-wrap: anywhere; }

.lf-forest { width: 100%; height: auto; display: block; font-size: 13px; }
.lf-forest text { fill: currentColor; } .lf-forest .lf-dim { opacity: .62; }
.lf-more { border: 1px solid var(--lf-line); border-radius: 8px; padding: .5rem 1rem; margin: .6rem 0; }
.lf-more summary { cursor: pointer; font-weight: 600; }

.lf-answers { width: 100%; border-collapse: separate; border-spacing: 0; font-size: .9rem; line-height: 1.45; table-layout: fixed; }
.lf-answers th { position: sticky; top: 0; background: var(--bs-body-bg, #fff); text-align: left; padding: .5rem .8rem; border-bottom: 2px solid var(--lf-line); font-weight: 650; }
.lf-answers td { vertical-align: top; padding: .7rem .8rem; border-bottom: 1px solid var(--lf-line); overflow-wrap: anywhere; }
.lf-answers tr.lf-group td { background: var(--lf-soft); font-weight: 650; padding: .45rem .8rem; }
.lf-answers .lf-hit { background: rgba(15, 157, 138, .17); border-radius: 3px; }
.lf-score { display: block; margin-top: .35rem; color: var(--lf-muted); font-size: .8rem; }
.lf-score b { color: inherit; font-weight: 650; } .lf-score .lf-up { color: var(--lf-accent); font-weight: 650; } .lf-score .lf-down { color: #d9480f; font-weight: 650; }
.lf-records th:first-child { width: 12%; } .lf-records .lf-same { color: var(--lf-muted); font-style: italic; }
.lf-records .lf-cut { background: rgba(232, 89, 12, .18); border-radius: 3px; } .lf-mask { font-size: .85em; font-weight: 600; color: var(--lf-accent); }
@media print { .side-nav-wrapper { display: none; } }
"""
