"""How the pages look: light and dark, from the width of a telephone to that of a desk."""

CSS = """
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#1c2128;--muted:#57606a;
--line:#d8dce2;--train:#1f66c1;--held:#b9500b;--right:#1a7f37;--wrong:#c0272d;--bar:#7fa9dd;
--trough:#e9edf2;--c1:#0b6e99;--c2:#c2410c;--c3:#15803d;--c4:#8b3fd9;--c5:#b91c5c;--c6:#7a6a00}
@media (prefers-color-scheme:dark){:root{--paper:#12151a;--card:#1b1f26;--ink:#e6e9ee;
--muted:#a3acb9;--line:#363d48;--train:#6aa8f7;--held:#f0a25b;--right:#5dc477;--wrong:#ff8b86;
--bar:#3f6ea8;--trough:#2a303a;--c1:#5cc4ee;--c2:#fb9a5a;--c3:#62d083;--c4:#c79bff;--c5:#ff86b3;
--c6:#d8c24a}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);line-height:1.45;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main{max-width:1160px;margin:0 auto;padding:0 16px}
header{padding-top:28px}main{padding-bottom:48px}
header p,h1,h2,h3{margin:0}h1{font-size:1.75rem;line-height:1.2;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:44px 0 4px}h3{font-size:1rem;margin:20px 0 8px;overflow-wrap:anywhere}
section>.muted{margin:0 0 12px;max-width:80ch}
.muted,.where,.absent{color:var(--muted);font-size:.875rem}
.where,.absent{margin:0;overflow-wrap:anywhere}
dl,dd,dt,figure{margin:0}
nav{display:flex;flex-wrap:wrap;gap:6px 18px;margin-top:20px;font-size:.9375rem}
nav a{color:var(--train);text-underline-offset:3px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;
margin-top:12px}
.tile,figure,.card,.scroll,.pairs,.panel{background:var(--card);border:1px solid var(--line);
border-radius:10px}
.tile{padding:14px 16px;display:grid;grid-row:span 3;grid-template-rows:subgrid;gap:0}
.tile dt{color:var(--muted);font-size:.875rem}
.tile dd{font-size:1.75rem;font-weight:650;font-variant-numeric:tabular-nums}
.tile .small{font-size:.8125rem;font-weight:400;color:var(--muted)}
.judged{margin-top:20px;padding:14px 18px;background:var(--card);border:1px solid var(--line);
border-left:6px solid var(--muted);border-radius:10px}
.judged p{margin:0;max-width:90ch}.judged>p{font-size:1.125rem}
.judged details{margin-top:6px}.judged ul{margin:4px 0;padding-left:20px;max-width:90ch}
.judged.fine{border-left-color:var(--right)}.judged.weak{border-left-color:var(--held)}
.judged.bad{border-left-color:var(--wrong)}
.whole{white-space:nowrap}
.tiles+.muted,.muted+.muted{margin:12px 0 0;max-width:80ch}
.glance{display:grid;grid-template-columns:repeat(6,minmax(0,1fr));gap:12px;list-style:none;
margin:8px 0 0;padding:0;font-size:.875rem}
.glance li{display:flex;flex-direction:column;gap:2px;min-width:0;overflow-wrap:anywhere}
.glance img{width:100%;aspect-ratio:1;object-fit:contain;border-radius:6px;margin-bottom:4px;
background:var(--trough)}
.glance span{color:var(--muted)}
.glance .right b{color:var(--right)}.glance .wrong b{color:var(--wrong)}
.curves,.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));
gap:12px}
figure{padding:12px 12px 6px;min-width:0}figcaption{font-weight:600;margin:0 0 6px 4px}
figure svg{display:block;width:100%;height:auto}
/* Letters of a drawing grow with it; on a wide screen that would be too much. */
figure svg text{font-family:inherit!important}
@media (min-width:720px){figure svg text{font-size:9px!important}}
.legend{display:flex;flex-wrap:wrap;gap:4px 22px;list-style:none;margin:0 0 12px;padding:0;
color:var(--muted);font-size:.875rem}
.legend li::before{content:"";display:inline-block;width:22px;margin-right:8px;
vertical-align:middle;border-top:2px solid var(--train)}
.legend .epoch::before{border:0;height:9px;background:radial-gradient(circle,var(--held) 4px,
transparent 4.5px),linear-gradient(var(--held),var(--held)) center/100% 2px no-repeat}
.legend .probe::before{border-top:1px solid var(--held);opacity:.5}
.legend .phase::before{border:0;width:2px;height:14px;border-left:2px dotted var(--muted)}
.legend .c1::before{border-top-color:var(--c1)}
.legend .c2::before{border-top:2px dashed var(--c2)}
.legend .c3::before{border-top:2px dotted var(--c3)}
.legend .c4::before{border-top:2px dashed var(--c4)}
.legend .c5::before{border-top-color:var(--c5)}
.legend .c6::before{border-top:2px dashed var(--c6)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
th,td{padding:5px 12px;text-align:right;font-weight:400;font-variant-numeric:tabular-nums}
th:first-child{text-align:left}
thead th{color:var(--muted);font-size:.875rem;vertical-align:bottom}
thead+tbody tr:first-child>*{border-top:1px solid var(--line)}
.task th{font-weight:650;padding-top:14px;border-top:1px solid var(--line)}
tbody tr:last-child>*{padding-bottom:12px}
tbody th[scope=row]{min-width:7rem}
.task~tr th[scope=row]{padding-left:24px}
.kind th[scope=row]{color:var(--muted)}.task~.kind th[scope=row]{padding-left:40px}
td b{font-weight:500}.kind td b{font-weight:400}small{color:var(--muted);font-size:.8125rem}
.cell,.cell small{white-space:nowrap}
td.best b{font-weight:700}td.best b::before{content:"★ ";color:var(--right)}
td.apart b{color:var(--wrong)}td.apart b::before{content:"▾ "}
.cell{display:flex;flex-wrap:wrap;gap:0 10px;justify-content:flex-end;align-items:baseline}
.track{display:block;position:relative;height:6px;margin-top:3px;border-radius:3px;
background:var(--trough)}
.track i,.track u,.track s{position:absolute;display:block}
.track i{inset:0 auto 0 0;border-radius:3px;background:var(--bar)}
.track u{top:-1px;bottom:-1px;border:solid var(--ink);border-width:0 1px;min-width:3px;
background:linear-gradient(var(--ink),var(--ink)) center/100% 1px no-repeat}
.track s{top:-3px;bottom:-3px;width:3px;margin-left:-1px;background:var(--held)}
.panel{padding:14px 16px;min-width:0}.panel h3{margin:0 0 8px}.panel p{margin:10px 0 0}
.bars{display:grid;grid-template-columns:auto 1fr auto;gap:8px 12px;align-items:center;
font-size:.9375rem}
.bars dt{color:var(--muted)}.bars .track{height:14px;margin:0}
.bars dd{text-align:right;font-variant-numeric:tabular-nums}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr));
gap:12px}
.card{padding:12px;border-top:3px solid var(--line);min-width:0;display:flex;
flex-direction:column;gap:8px}
.card.right{border-top-color:var(--right)}.card.wrong{border-top-color:var(--wrong)}
.media{display:grid;gap:8px;justify-items:center}.media:empty{display:none}
.media img{width:192px;max-width:100%;height:auto;border-radius:6px}
.media .spectrogram{width:100%;height:72px}
.media audio{width:100%;height:40px}
.verdict{margin:0;font-weight:650;font-size:.9375rem}
.verdict small{display:block;font-weight:400}
.right .verdict,.right .answer{color:var(--right)}
.wrong .verdict,.wrong .answer{color:var(--wrong)}
.card dl{display:grid;grid-template-columns:auto 1fr;gap:2px 10px;font-size:.9375rem}
.card dt{color:var(--muted)}.card dd{overflow-wrap:anywhere;min-width:0}
.card .where{margin-top:auto;font-size:.8125rem}
details{margin-top:10px}summary{cursor:pointer;color:var(--muted);font-size:.9375rem;
padding:4px 0}
details table td,details table th{overflow-wrap:anywhere}
details table td:last-child{white-space:nowrap}
.pairs{padding:6px 16px;columns:2;column-gap:40px}
.pairs div{display:flex;gap:16px;justify-content:space-between;padding:5px 0;
break-inside:avoid;border-bottom:1px solid var(--line);font-size:.9375rem}
.pairs dt{color:var(--muted);flex:0 1 auto}
.pairs dd{text-align:right;overflow-wrap:anywhere;min-width:0}
pre{margin:12px 0 0;padding:12px 16px;background:var(--card);border:1px solid var(--line);
border-radius:10px;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.875rem}
@media (min-width:720px){.score{width:calc(70%/var(--splits))}}
@media (max-width:719px){.pairs{columns:1}
.glance{grid-template-columns:repeat(3,minmax(0,1fr));font-size:.8125rem}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr))}.tile{padding:10px 12px}
.tile dd{font-size:1.5rem}.judged>p{font-size:1rem}
table{font-size:.8125rem}th,td{padding:4px}thead th{font-size:.8125rem}
small{font-size:.6875rem}.cell{flex-direction:column;align-items:flex-end}
th:first-child{padding-left:10px}td:last-child,th:last-child{padding-right:10px}
tbody th[scope=row]{min-width:0}
.task~tr th[scope=row]{padding-left:14px}.task~.kind th[scope=row]{padding-left:22px}}
@media print{nav,audio{display:none}section{break-inside:auto}}
"""
