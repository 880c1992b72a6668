"""Studies: questions that the lab answers in seconds, each with the published or derived result it reproduces.

    setsail lab                    lists them
    setsail lab NAME --out DIR     runs one: a table, its claims, JSON and figures

A study is one module of this package with a constant ``STUDY``, listed in ``catalogue.py`` by one import line and one
name. It holds mathematics alone, and that of training: ``methods.get(...).configured(...)``,
``lab.mixture_gradient``, ``lab.train``, ``lab.route_groups``, the objectives. It returns plain numbers; the terminal,
the JSON, the figures and the pages are made from them elsewhere::

    from setsail import lab, methods
    from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table

    def find() -> StudyResult:
        ...
        ends = Table(name="ends", title="Where training ends", columns={"method": "", "KL, nats": ".4f"}, rows=rows)
        claim = Claim(sentence="KL of the optimum, nats", measured=kl, expected=0.2965, tolerance=6e-5)
        panel = Panel(x_label="step", y_label="KL, nats", curves=[Curve(label="online DPO", x=steps, y=kls)])
        return StudyResult(tables=[ends], claims=[claim], figures=[Figure(name="path", title="...", panels=[panel])])

    STUDY = Study(name="my-study", question="Does it ...?", result="it does ...", source="arXiv 2406.15567, section 4",
                  seconds=2, find=find)

Rules: no arguments, no files, no clock; randomness from ``setsail.core.stream(seed, "study", NAME, ...)``; under 30
seconds on one core, and a few where that will do, because the tests run each; curves of at most about 200 points;
tables and figures are named by lower-case words with hyphens. A claim that does not hold stays, is printed as not
reproduced, and its page says why.

Its page is ``docs/lab/NAME.md``; every table, figure and the claims stand between markers that name them::

    <!-- generated: NAME/claims -->  <!-- generated: NAME/table/ends -->  <!-- generated: NAME/figure/path -->

each closed by ``<!-- /generated -->``. ``python tests/docs/lab_pages.py NAME`` runs the study, writes
``docs/lab/results/NAME.json`` and ``docs/lab/images/NAME-FIGURE.png``, and fills in the pages from the JSON (all
studies without NAME; ``--pages`` only fills in). The tests compare JSON, pages, pictures and a fresh run.
"""

from setsail.lab.studies.catalogue import STUDIES, get, names, run
from setsail.lab.studies.picture import draw
from setsail.lab.studies.recorded import read_json, to_json
from setsail.lab.studies.records import Cell, Claim, Curve, Figure, Panel, Study, StudyResult, Table

__all__ = [
    "STUDIES",
    "Cell",
    "Claim",
    "Curve",
    "Figure",
    "Panel",
    "Study",
    "StudyResult",
    "Table",
    "draw",
    "get",
    "names",
    "read_json",
    "run",
    "to_json",
]
