"""Words of captions for styles, sizes and relations."""

from cogview.world.config import Language, Style
from cogview.world.scenes import Relation

# Styles are described by their look, so that users need not know their names.
STYLE_WORDS: dict[Style, dict[Language, tuple[str, ...]]] = {
    "noto": {"zh": ("卡通", "卡通画"), "en": ("cartoon", "comic")},
    "twemoji": {"zh": ("贴纸", "简洁"), "en": ("sticker", "simple")},
    "fluent": {"zh": ("渐变", "柔和"), "en": ("gradient", "soft")},
    "fluent-flat": {"zh": ("扁平", "平面"), "en": ("flat", "flat design")},
    "fluent-3d": {"zh": ("立体", "3D"), "en": ("3D", "3D rendered")},
    "openmoji": {"zh": ("线描", "描边"), "en": ("outlined", "line art")},
    "outlined": {"zh": ("勾边", "黑边"), "en": ("inked", "black outline")},
}

SIZE_WORDS: dict[str, dict[Language, tuple[str, ...]]] = {
    "small": {"zh": ("小", "很小的", "小小的", "非常小的"), "en": ("small", "little", "tiny")},
    "big": {"zh": ("很大的", "大大的", "巨大的", "大"), "en": ("big", "large", "huge")},
}
"""By the keys of `scenes.NAMED_SIZES`, the usual word first. Names of things contain 大 and 小, too: 大象, 小鸡."""

CHINESE_SIDES: dict[Relation, tuple[str, ...]] = {
    "left": ("左边", "左侧", "左面"),
    "right": ("右边", "右侧", "右面"),
    "above": ("上面", "上方", "上边"),
    "below": ("下面", "下方", "下边"),
}
ENGLISH_PREPOSITIONS: dict[Relation, tuple[str, ...]] = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "above", "over"),
    "below": ("below", "under", "beneath"),
}
ENGLISH_SIDES: dict[Relation, str] = {
    "left": "on the left",
    "right": "on the right",
    "above": "at the top",
    "below": "at the bottom",
}
RELATION_WORDS: dict[Relation, dict[Language, tuple[str, ...]]] = {
    relation: {
        "zh": CHINESE_SIDES[relation],
        "en": (*dict.fromkeys(ENGLISH_PREPOSITIONS[relation]), ENGLISH_SIDES[relation]),
    }
    for relation in CHINESE_SIDES
}

BESIDE_WORDS: dict[Language, tuple[str, ...]] = {
    "zh": ("旁边", "并排"),
    "en": ("beside", "next to", "side by side"),
}
"""Words for two things side by side; the first one mentioned is on the left."""
