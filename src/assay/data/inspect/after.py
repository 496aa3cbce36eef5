"""Columns that are known only after the answer: their names say so, and they know something about it."""

from __future__ import annotations

import re

from assay.data.inspect.base import Finding
from assay.data.inspect.names import tokens
from assay.data.inspect.power import power
from assay.data.inspect.view import View
from assay.words import say

LEAST = 0.02  # of the answer that the column explains by itself; less is chance
STRONG = 0.5
_WORDS = {
    "outcome", "result", "results", "resolved", "resolution", "closed", "closing", "discharge", "discharged", "death", "died", "deceased", "survived", "survival",
    "cancelled", "canceled", "cancellation", "churned", "churn", "terminated", "termination", "refund", "refunded", "returned", "settlement", "settled", "recovered",
    "recovery", "recoveries", "collection", "chargeoff", "chargedoff", "writeoff", "final", "predicted", "prediction", "pred", "forecast", "actual", "verdict",
    "decision", "approved", "rejected", "diagnosis", "diagnosed", "repaired", "repair", "downtime", "posterior", "after", "afterwards", "post", "postop", "completed",
    "completion", "ended", "exit", "convicted", "conviction", "sentence", "defaulted", "delinquent", "overdue", "lifeboat", "boat", "body", "invoiced", "shipped",
    "delivered", "aftermath", "followup",
}
_PHRASES = re.compile(r"(?:end|close|closed|exit|churn|cancel|death|discharge|resolution|last_payment|completion|termination)[_ .-]?(?:date|time|reason|at|on|code)|"
                      r"reason[_ .-]?(?:for[_ .-]?)?(?:leaving|cancel|churn|exit)|root[_ .-]?cause|failure[_ .-]?(?:type|mode|code)|score[_ .-]?text", re.IGNORECASE)
_CHINESE = re.compile(r"结果|结局|结论|原因|已?解决|关闭|完成|结束|取消|退款|退货|赔付|赔偿|理赔|追回|核销|逾期|出院|死亡|离职|流失|预测|实际|维修|故障类型|故障代码|处理|判定|审批|通过|拒绝|"
                      r"确诊|诊断|随访|签收|成交|最终|事后")


def known_later(view: View, *, apart: set[str]) -> list[Finding]:
    """Named like something that comes after the answer, and telling: a note, or a warning if it explains half of it."""
    told = {}
    for cells in view.cells.values():
        if cells.name in apart or cells.column.kind in ("id", "text") or cells.levels < 2 or not names_an_outcome(cells.name):
            continue
        skill = power(cells, view).skill
        if skill >= LEAST:
            told[cells.name] = skill
    out = []
    for level, names in (("warning", [n for n, s in told.items() if s >= STRONG]), ("note", [n for n, s in told.items() if s < STRONG])):
        if not names:
            continue
        names.sort(key=lambda n: -told[n])
        out.append(Finding("after_the_fact", level, say(
            "{columns} may be known only after '{target}' is: the name says so, and '{column}' alone explains {percent:.0f} % of it.", columns=names,
            target=view.data.y.name, column=names[0], percent=100 * told[names[0]]),
            say("Ask when {columns} is filled in. If it is after the moment of the question, leave it out.", columns=names), tuple(names),
            {"explained": {n: round(told[n], 4) for n in names}, "rows": len(view), "sampled": not view.whole}))
    return out


def names_an_outcome(name: str) -> bool:
    words = tokens(name)
    return bool(set(words) & _WORDS) or bool(_PHRASES.search(name)) or bool(_CHINESE.search(name))
