"""Forms of English captions. Repeated forms are more frequent.

Slots: `content` of the scene, `what` the same with its ground, `first` and `second` of two things; `is_` and `there`
agree with the first things, `verb` with all; `it` and `them` refer to the first things and to all. Positions, numbers,
colours and sizes are mentioned in slots only.
"""

# Two things

RELATION_THINGS = (
    "{first} {preposition} {second}",
    "{first} {preposition} {second}",
    "{first} {side} and {second} {other_side}",
)
RELATION_CLAUSES = ("{first} {is_} {preposition} {second}",)
RELATION_INVERTED_CLAUSES = (
    "{preposition} {second} {is_} {first}",
    "{side} {is_} {first}, {other_side} {is_second} {second}",
    "{side} there {is_} {first}, {other_side} {second}",
)
FREE_RELATION_THINGS = (
    "{first} {side}, {second} {other_side}",
    "{first} {side} with {second} {other_side}",
    "{first} {side} plus {second} {other_side}",
    "{first} placed {preposition} {second}",
    "{first} put {preposition} {second}",
    "{first} shown {preposition} {second}",
    "{first} drawn {preposition} {second}",
    "{first} that {is_} {preposition} {second}",
    "{first} which {is_} {preposition} {second}",
    "{second} with {first} {preposition} {it_second}",
    "{first} and {second} {other_preposition} {it}",
    "{first} and, {other_preposition} {it}, {second}",
    "{first} with {second} {other_preposition} {it}",
)
FREE_RELATION_CLAUSES = (
    "{first} {is_} placed {preposition} {second}",
    "{first} {is_} shown {preposition} {second}",
    "there {is_} {first} {preposition} {second}",
    "there {is_} {first} {side} and {second} {other_side}",
    "{first} {is_} {side} and {second} {is_second} {other_side}",
    "{first} {is_} {side}, {second} {is_second} {other_side}",
    "{first} {is_} {side} and {second} {other_side}",
    "you can see {first} {preposition} {second}",
    "we see {first} {preposition} {second}",
    "{second} {has_second} {first} {preposition} {it_second}",
)
FREE_RELATION_INVERTED_CLAUSES = (
    "{preposition} {second} there {is_} {first}",
    "{preposition} {second} you see {first}",
    "{preposition} {second}, {first}",
    "{side} you see {first}, {other_side} {second}",
    "{side} {first}, {other_side} {second}",
    "{side} {first} and {other_side} {second}",
    "{side} {is_} {first} and {other_side} {is_second} {second}",
    "{side} there {is_} {first} and {other_side} there {is_second} {second}",
    "{side}: {first}, {other_side}: {second}",
)
BESIDE_THINGS = (
    "{first} beside {second}",
    "{first} beside {second}",
    "{first} beside {second}",
    "{first} next to {second}",
    "{first} next to {second}",
    "{first} next to {second}",
    "{first} placed next to {second}",
    "{first} shown beside {second}",
    "{first} with {second} beside {it}",
    "{first} and, next to {it}, {second}",
    "{first} and {second} side by side",
    "{first} and {second} next to each other",
)
BESIDE_CLAUSES = (
    "{first} {is_} beside {second}",
    "{first} {is_} next to {second}",
    "there {is_} {first} next to {second}",
    "there {is_} {first} beside {second}",
    "{first} and {second} are side by side",
    "{first} and {second} are next to each other",
)
BESIDE_INVERTED_CLAUSES = (
    "next to {first} {is_second} {second}",
    "beside {first} there {is_second} {second}",
)
LISTS = ("{start} and {last}",)
FREE_LISTS = (
    "{start} and also {last}",
    "{start}, and {last}",
    "{start}, and also {last}",
    "{start} plus {last}",
    "{start}, plus {last}",
    "{start} with {last}",
    "{start} together with {last}",
    "{start} along with {last}",
    "{start} as well as {last}",
    "{start} and then {last}",
    "{start}, {last}",
)

# Grounds

BACKGROUNDS = (*("background",) * 5, "backdrop", "ground")
THINGS = (
    *("{content} on {a_ground}",) * 4,
    "{content} on {colour}",
    "{content}, {ground}",
    "{content} against {a_ground}",
    "on {a_ground}, {content}",
    "{content} with {a_ground}",
)
THINGS_LED_IN = (
    "a picture of {content} on {a_ground}",
    "an image with {content} on {a_ground}",
    "draw {content} on {a_ground}",
    "{a_colour} picture with {content}",
    "{a_ground} with {content}",
)
CLAUSES = (
    "on {a_ground}, {content}",
    "{content}, on {a_ground}",
    "{content}, {ground}",
    "with {a_ground}, {content}",
)
LEAD_INS = ("a picture of ", "an image of ", "draw ")
# For clauses, and also for things.
FREE_CLAUSES_BEFORE_GROUNDS = (
    "{content}, with {a_ground}",
    "{content}, on {colour}",
    "{content}, against {a_ground}",
    "{content}, against {colour}",
    "{content}, in front of {a_ground}",
    "{content}, {ground} please",
    "{content}, with {a_ground} please",
    "{content}, all on {colour}",
    "{content}, all on {a_ground}",
    "{content}, {colour} in the background",
    "{content}, with {colour} in the background",
    "{content}, with {colour} as the background",
    "{content}, with {colour} behind {them}",
    "{content}, background {colour}",
    "{content}, background: {colour}",
    "{content}, background in {colour}",
    "{content}, plain {ground}",
    "{content}, solid {ground}",
    "{content}, on a plain {ground}",
    "{content}, on a solid {ground}",
    "{content}, on {a_colour} page",
    "{content}, on {a_colour} canvas",
    "{content}, and the background is {colour}",
    "{content}, and {a_ground}",
)
CLAUSES_BEFORE_GROUNDS = ("{content}, on {a_ground}", "{content}, {ground}")
THINGS_ON_GROUNDS = (
    "{content} on {a_ground}",
    "{content} on {a_ground}",
    "{content} on {colour}",
    "{content}, {ground}",
    "{content} with {a_ground}",
)
FREE_THINGS_ON_GROUNDS = (
    "{content} in front of {a_ground}",
    "{content} in front of {a_ground}",
    "{content} in front of {a_ground}",
    "{content} in front of {colour}",
    "{content} against {colour}",
    "{content} set against {a_ground}",
    "{content} placed on {a_ground}",
    "{content} drawn on {a_ground}",
    "{content} painted on {a_ground}",
    "{content} painted on {colour}",
    "{content} shown on {a_ground}",
    "{content} on a plain {ground}",
    "{content} on a solid {ground}",
    "{content} on an all-{colour} background",
    "{content} on {a_colour} page",
    "{content} on {a_colour} canvas",
    "{content} on {a_colour} sheet",
    "{content} on {a_colour} surface",
    "{content} on a background of {colour}",
    "{content} on a background that is {colour}",
    "{content} and {a_ground}",
    "{content} with {a_ground} behind {them}",
    "{content} with {colour} behind {them}",
    "{content} with {colour} as the background",
    "{content} with {colour} in the background",
    "{content} with {colour} all around",
    "{content} surrounded by {colour}",
    *FREE_CLAUSES_BEFORE_GROUNDS,
)
THING_SENTENCES = (
    "there {there} {content} on {a_ground}",
    "there {there} {content} in front of {a_ground}",
    "there {there} {content} against {a_ground}",
    "here {there} {content} on {a_ground}",
    "on {a_ground} there {there} {content}",
    "on {colour} there {there} {content}",
    "in front of {a_ground} there {there} {content}",
    "{content} {verb} on {a_ground}",
    "{content} {verb} in front of {a_ground}",
    "{content} {verb} shown on {a_ground}",
    "{content} {verb} placed on {a_ground}",
    "you can see {content} on {a_ground}",
    "you see {content} in front of {a_ground}",
    "we see {content} on {a_ground}",
    "on {a_ground} we see {content}",
    "the picture shows {content} on {a_ground}",
    "this is a picture of {content} on {a_ground}",
    "the background is {colour}, and there {there} {content}",
    "the background is {colour}, with {content}",
    "{a_ground}, and on it {content}",
    "{a_ground} behind {content}",
    "{a_ground} and {content}",
    "{ground}: {content}",
    "{ground}, with {content}",
    "put {content} on {a_ground}",
    "put {content} on {colour}",
    "please put {content} on {a_ground}",
    "please put {content} on {colour}",
    "place {content} on {a_ground}",
    "place {content} in front of {a_ground}",
    "set {content} against {a_ground}",
    "take {a_ground} and draw {content} on it",
    "take {a_ground} and put {content} on it",
    "fill the background with {colour} and draw {content}",
    "make the background {colour} and draw {content}",
    "draw {content} and make the background {colour}",
    "draw {content} and keep the background {colour}",
    "use {a_ground} for {content}",
    "{a_colour} canvas with {content}",
    "{a_colour} page with {content} on it",
    "{a_colour} image of {content}",
    "can you put {content} on {a_ground}?",
    "could you put {content} on {colour}?",
    "could you place {content} on {a_ground}?",
    "can the background of {content} be {colour}?",
)
CLAUSE_SENTENCES = (
    "the background is {colour}, and {content}",
    "the background is {colour} and {content}",
    "{a_ground} where {content}",
    "{a_ground} on which {content}",
    "{a_colour} picture where {content}",
    "{a_colour} picture in which {content}",
    "draw {a_colour} picture where {content}",
    "make the background {colour}: {content}",
    "{ground}: {content}",
)
THING_SENTENCES_WITHOUT_GROUND = (
    "there {there} {content}",
    "here {there} {content}",
    "you can see {content}",
    "we see {content}",
    "the picture shows {content}",
    "the image shows {content}",
    "this is a picture of {content}",
    "in the picture there {there} {content}",
    "{content} {verb} in the picture",
    "{content}, nothing else",
)

# Styles

STYLES = (
    "{sentence}, {style} style",
    "{style} style, {sentence}",
    "{sentence}, in {style} style",
    "{style} style: {sentence}",
)
FREE_STYLES = (
    "{sentence}, in {a_style} style",
    "{sentence} in {style} style",
    "{sentence} in {a_style} style",
    "{sentence}, drawn in {style} style",
    "{sentence}, painted in {style} style",
    "{sentence}, all in {style} style",
    "{sentence}, use {style} style",
    "{sentence}, {style} style please",
    "{sentence}, {style} style, thanks",
    "{sentence}, I like {style} style",
    "in {style} style, {sentence}",
    "in {style} style: {sentence}",
    "use {style} style: {sentence}",
)
