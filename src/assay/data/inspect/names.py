"""What a column's name says: who it belongs to, when it is known, what it counts. English and Chinese."""

from __future__ import annotations

import re

_UNIT_WORDS = {
    "patient", "patients", "subject", "subjects", "subj", "participant", "respondent", "person", "user", "customer", "client", "member", "household",
    "family", "machine", "unit", "device", "engine", "equipment", "asset", "bearing", "battery", "turbine", "sensor", "school", "class", "classroom", "student",
    "pupil", "learner", "teacher", "speaker", "singer", "writer", "author", "batch", "lot", "wafer", "coil", "session", "trial", "hospital", "clinic", "ward",
    "site", "animal", "mouse", "rat", "cow", "donor", "specimen", "sample", "slide", "plate", "case", "run", "group", "cluster", "driver", "vehicle",
    "player", "employee", "worker", "operator", "rater", "borrower", "account", "essay_set", "essayset", "prompt", "experiment", "invoice", "order", "visitor",
    "pump", "motor", "compressor", "robot", "valve", "furnace", "gearbox", "transformer", "reactor", "inverter", "generator", "meter", "truck", "ship", "aircraft",
    "drone", "dog", "horse", "sheep", "pig", "tree", "plot", "farm", "borehole", "child", "infant", "mother", "physician", "doctor", "nurse", "agent", "seller", "reviewer",
}
_AMBIGUOUS = {"subject", "class", "group", "unit", "case", "order", "site", "run", "trial", "sample", "cluster", "prompt", "account", "session", "family", "plate",
              "member"}  # 'subject' is a person in a study and mathematics in a school
_UNIT_CHINESE = re.compile(r"患者|病人|病历|住院号|就诊卡|被试|受试者|参与者|用户|客户|会员|顾客|家庭|户号|设备|机器|机组|机台|机床|发动机|电池|轴承|传感器|学校|班级|学生|学号|教师|"
                           r"说话人|讲话人|作者|批次|批号|炉号|卷号|会话|医院|科室|动物|样本|样品|实验|试验|司机|驾驶员|车辆|车牌|员工|工号|操作员|借款人|账户|账号|分组|组号|姓名")
_PLACE_WORDS = {"store", "shop", "product", "item", "sku", "article", "region", "city", "state", "country", "province", "county", "zip", "zipcode", "postcode",
                "neighborhood", "neighbourhood", "district", "suburb", "street", "zone", "market", "tract", "block",
                "branch", "category", "brand", "make", "model", "type", "station", "route", "line", "skill", "team", "warehouse", "department", "area", "code"}
_CALENDAR = {"year": 0, "yr": 0, "yyyy": 0, "年": 0, "年份": 0, "quarter": 1, "qtr": 1, "季度": 1, "month": 2, "mnth": 2, "mon": 2, "mm": 2, "月": 2, "月份": 2,
             "week": 3, "周": 3, "周数": 3, "weekofyear": 3, "day": 4, "dd": 4, "dom": 4, "dayofmonth": 4, "日": 4, "天": 4, "hour": 5, "hr": 5, "hh": 5, "小时": 5, "时": 5,
             "minute": 6, "分钟": 6, "second": 7, "秒": 7}
_STAMP = {"date", "time", "timestamp", "datetime", "ts", "epoch", "instant", "period", "日期", "时间", "时间戳", "期数"}
_COUNTER = {"t", "step", "cycle", "visit", "seq", "sequence", "frame", "lag", "tick", "index", "idx", "轮次", "周期", "步", "序号"}
_FOLD = {"split", "set", "fold", "partition", "subset", "dataset", "usage", "istrain", "istest", "数据集", "划分"}


def tokens(name: str) -> list[str]:
    """Lower-case words of a name: 'PatientID' -> ['patient', 'id']; Chinese stays in one piece."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.strip())
    return [w for w in re.split(r"[\W_]+", spaced.lower()) if w]


def shape(name: str) -> str:
    """The form of a name: capitals A, small letters a, digits 9, runs kept: 'TWF' -> 'AAA', 'r_days' -> 'a_aaaa'."""
    return re.sub(r"[0-9]", "9", re.sub(r"[a-z]", "a", re.sub(r"[A-Z]", "A", name)))


def names_a_unit(name: str) -> int:
    """2: somebody or something that is met again and again (patient, machine, batch); 1: some other key; 0: no such word; -1: a place or a kind of thing."""
    words = tokens(name)
    keyed = bool(words) and words[-1] in {"id", "no", "nr", "key", "uid", "uuid", "ref"}
    if _UNIT_CHINESE.search(name):
        return 2
    glued = re.sub(r"(?:id|no|num|code)$", "", words[-1]) if words else ""
    if set(words) & _UNIT_WORDS or glued in _UNIT_WORDS or name.lower() in _UNIT_WORDS:
        rest = [w for w in words if w not in _UNIT_WORDS and w not in {"id", "no", "nr", "number", "code", "key", "uid", "num", "index", "name", "the", "of"}]
        return 2 if not rest or keyed else 0  # 'patient_id' names patients, 'patient_age' does not
    if set(words) & _PLACE_WORDS or glued in _PLACE_WORDS:
        return -1
    return 1 if keyed or re.search(r"编号|号码|代码|号$", name) else 0


def ambiguous(name: str) -> bool:
    """The word for a unit means other things too; then the values have to look like keys."""
    found = set(tokens(name)) & _UNIT_WORDS
    return bool(found) and found <= _AMBIGUOUS and not set(tokens(name)) & {"id", "no", "nr", "uid", "uuid"}


def calendar_part(name: str) -> int | None:
    """0 for a year ... 7 for a second, None if the name is no such part."""
    words = tokens(name)
    return _CALENDAR.get(words[0]) if len(words) == 1 else None


def names_a_time(name: str) -> bool:
    """The name says when: 'date', 'order_date', 'timestamp', 'day_index', 'month_no', 期数."""
    words = tokens(name)
    if not words:
        return False
    if words[-1] in _STAMP or (len(words) == 1 and words[0] in _STAMP | _CALENDAR.keys()):
        return True
    return len(words) == 2 and words[0] in _CALENDAR.keys() | _STAMP and words[1] in {"index", "idx", "no", "nr", "number", "num", "id", "count", "seq", "序号"}


def names_a_counter(name: str) -> bool:
    """The name counts steps, of time or within something: 't', 'step', 'cycle', 'index'."""
    words = tokens(name)
    return bool(words) and (words[-1] in _COUNTER or names_a_time(name))


def names_a_fold(name: str) -> bool:
    words = tokens(name)
    return (bool(words) and "".join(words) in _FOLD | {"traintest", "trainortest", "issplit"}) or (len(words) > 1 and words[-1] in {"split", "fold", "partition"})
