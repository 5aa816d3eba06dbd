"""Forms of Chinese captions. Repeated forms are more frequent.

Slots: `content` of the scene; `what`, the same with its ground; `thing`, the same without a comma; `first` and `second`
of two things; `start` and `last` of a list. Positions, numbers, colours and sizes are mentioned in slots only.
"""

# Things

COLOURED = (
    "{colour}色的{name}",
    "{colour}色的{name}",
    "{colour}色的{name}",
    "{colour}色{name}",
    "{colour}{name}",
)

# Two things

RELATIONS = (
    "{first}在{second}的{side}",
    "{first}在{second}{side}",
    "{second}的{side}是{first}",
    "{second}的{side}有{first}",
    "{side}是{first}，{other_side}是{second}",
    "{side}有{first}，{other_side}有{second}",
    "{first}在{side}，{second}在{other_side}",
)
FREE_RELATIONS = (
    "{first}位于{second}的{side}",
    "{first}位于{second}{side}",
    "{first}放在{second}的{side}",
    "{first}放在{second}{side}",
    "{first}画在{second}的{side}",
    "{first}画在{second}{side}",
    "{first}摆在{second}的{side}",
    "{second}的{side}画着{first}",
    "{second}的{side}放着{first}",
    "{second}{side}是{first}",
    "{second}{side}有{first}",
    "在{second}的{side}有{first}",
    "在{second}的{side}，有{first}",
    "在{second}{side}有{first}",
    "{side}画{first}，{other_side}画{second}",
    "{side}画着{first}，{other_side}画着{second}",
    "{side}放{first}，{other_side}放{second}",
    "{side}{first}，{other_side}{second}",
    "{side}的是{first}，{other_side}的是{second}",
    "{side}是{first}，而{other_side}是{second}",
    "{side}有{first}，{other_side}是{second}",
    "{first}在{side}，{other_side}是{second}",
    "{first}在{side}，{other_side}有{second}",
    "{first}放在{side}，{second}放在{other_side}",
    "{first}画在{side}，{second}画在{other_side}",
)
BESIDE_CLAUSES = (
    "{first}旁边是{second}",
    "{first}旁边是{second}",
    "{first}旁边有{second}",
    "{first}旁边有{second}",
    "{first}的旁边是{second}",
    "{first}的旁边有{second}",
    "{first}旁边画着{second}",
    "在{first}旁边有{second}",
    "{first}和{second}并排",
    "{first}与{second}并排",
)
BESIDE_THINGS = ("{first}和旁边的{second}", "{first}以及旁边的{second}", "并排的{first}和{second}")
LISTS = ("{start}和{last}", "{start}和{last}", "{start}和{last}", "{start}与{last}", "{start}还有{last}")
FREE_LISTS = (
    "{start}以及{last}",
    "{start}跟{last}",
    "{start}加{last}",
    "{start}加上{last}",
    "{start}再加{last}",
    "{start}再加上{last}",
    "{start}，还有{last}",
    "{start}，以及{last}",
    "{start}，再加{last}",
    "{start}、{last}",
    "{start}，{last}",
)

# Grounds

BACKGROUNDS = (*("{colour}色背景",) * 4, "{colour}色的背景", "{colour}色底色", "{colour}背景")
THINGS = (
    *("{ground}上的{content}",) * 5,
    "{ground}上有{content}",
    "在{ground}上，有{content}",
    "在{ground}上的{content}",
    "{ground}，{content}",
    "{colour}底，{content}",
    "{content}，{ground}",
    "{content}，{colour}底",
    "{content}在{ground}上",
    "{content}，背景是{colour}色的",
)
THINGS_LED_IN = (
    "一张{colour}色背景的图片，里面有{content}",
    "{colour}色背景的图，画的是{content}",
    "画{content}，背景是{colour}色",
    "画出{ground}上的{content}",
    "请画{ground}上的{content}",
    "图片：{ground}上的{content}",
    "画面是{ground}，有{content}",
)
CLAUSES = (
    "{ground}上，{content}",
    "在{ground}上，{content}",
    "{ground}，{content}",
    "{colour}底，{content}",
    "{content}，{ground}",
    "{content}，{colour}底",
    "{content}，背景是{colour}色的",
)
LEAD_INS = ("画一幅画：", "图片：", "一张图，", "请画：")
# For clauses, and also for things.
FREE_CLAUSES_BEFORE_GROUNDS = (
    "{content}，背景是{colour}色",
    "{content}，背景为{colour}色",
    "{content}，背景用{colour}色",
    "{content}，背景要{colour}色",
    "{content}，背景要{colour}色的",
    "{content}，背景要是{colour}色的",
    "{content}，背景全是{colour}色",
    "{content}，背景用{colour}色的",
    "{content}，背景：{colour}色",
    "{content}，{colour}色做背景",
    "{content}，用{colour}色做背景",
    "{content}，用{ground}",
    "{content}，要{ground}",
    "{content}，请用{ground}",
    "{content}，以{colour}色为背景",
    "{content}，底色是{colour}色",
    "{content}，底色用{colour}色",
    "{content}，底是{colour}色的",
    "{content}，后面是{ground}",
    "{content}，后面是{colour}色",
    "{content}，纯{colour}色背景",
    "{content}，全{colour}色背景",
    "{content}，配{ground}",
    "{content}，配上{ground}",
    "{content}，放在{ground}上",
    "{content}，画在{ground}上",
    "{content}，{ground}就好",
    "{content}，{ground}，谢谢",
)
CLAUSES_BEFORE_GROUNDS = ("{content}，{ground}", "{content}，背景是{colour}色的", "{ground}上，{content}")
THINGS_ON_GROUNDS = ("{ground}上的{content}", "{ground}上的{content}", "{ground}上的{content}")
FREE_THINGS_ON_GROUNDS = (
    "{colour}色背景前的{content}",
    "{colour}色背景前面的{content}",
    "{colour}色背景里的{content}",
    "{colour}色背景中的{content}",
    "{colour}底的{content}",
    "{colour}色底上的{content}",
    "{colour}色画面上的{content}",
    "{colour}色画布上的{content}",
    "{colour}色的纸上的{content}",
    "纯{colour}色背景上的{content}",
    "全{colour}色背景上的{content}",
    "以{colour}色为背景的{content}",
    "用{colour}色做背景的{content}",
    "放在{ground}上的{content}",
    "在{colour}色背景前面的{content}",
)
THING_SENTENCES = (
    "在{ground}上画{content}",
    "在{ground}上画着{content}",
    "请在{ground}上画{content}",
    "请在{ground}上画出{content}",
    "帮我在{ground}上画{content}",
    "在{colour}色背景前画{content}",
    "在{colour}色背景里画{content}",
    "在{colour}色的纸上画{content}",
    "在{colour}色画布上画{content}",
    "能不能在{ground}上画{content}？",
    "可以在{ground}上画{content}吗？",
    "{ground}上画着{content}",
    "{ground}上放着{content}",
    "{ground}上是{content}",
    "{ground}上只有{content}",
    "{colour}色背景前有{content}",
    "{colour}色背景前面有{content}",
    "{colour}色背景前面是{content}",
    "{colour}色背景里有{content}",
    "{colour}色背景中有{content}",
    "{colour}色画布上有{content}",
    "{colour}色画布上画着{content}",
    "{colour}色的纸上画着{content}",
    "把{content}画在{ground}上",
    "把{content}放在{ground}上",
    "把{content}放到{ground}上",
    "请把{content}画在{ground}上",
    "请把{content}放在{ground}上",
    "{content}放在{ground}上",
    "{content}画在{ground}上",
    "{content}在{colour}色背景前面",
    "{content}出现在{ground}上",
    "给{content}配上{ground}",
    "给{content}配一个{ground}",
    "背景是{colour}色的，画{content}",
    "背景是{colour}色，有{content}",
    "背景是{colour}色，画的是{content}",
    "背景用{colour}色，画{content}",
    "用{colour}色做背景，画{content}",
    "以{colour}色为背景，画{content}",
    "底色是{colour}色，画{content}",
    "画面是{colour}色的，里面有{content}",
    "图片的背景是{colour}色，里面是{content}",
    "{ground}，画的是{content}",
    "{ground}，主角是{content}",
    "{ground}，里面是{content}",
    "{ground}：{content}",
    "{ground}加{content}",
    "先画{ground}，再画{content}",
)
CLAUSE_SENTENCES = (
    "背景是{colour}色的，{content}",
    "背景是{colour}色，{content}",
    "背景为{colour}色，{content}",
    "背景用{colour}色，{content}",
    "用{colour}色做背景，{content}",
    "以{colour}色为背景，{content}",
    "底色是{colour}色，{content}",
    "画面是{colour}色的，{content}",
    "{colour}色画布上，{content}",
    "{colour}色背景里，{content}",
    "{colour}色背景前，{content}",
    "{ground}：{content}",
)

# Styles

STYLES = ("{sentence}，{style}风格", "{style}风格，{sentence}", "{sentence}（{style}风格）")
FREE_STYLES = (
    "{sentence}，{style}风格的",
    "{sentence}，要{style}风格",
    "{sentence}，要{style}风格的",
    "{sentence}，用{style}风格",
    "{sentence}，用{style}风格画",
    "{sentence}，采用{style}风格",
    "{sentence}，{style}风格就好",
    "{sentence}，画成{style}风格",
    "{sentence}，我喜欢{style}风格",
    "用{style}风格，{sentence}",
    "用{style}风格：{sentence}",
    "{style}风格：{sentence}",
    "{style}风格的图：{sentence}",
)
