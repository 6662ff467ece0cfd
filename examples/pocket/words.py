"""Owns the words: what each concept may be called, articles and plurals.

The synonyms are chosen by hand out of everyday words, breeds and CLDR's keywords for emoji. None holds a
colour or a size, because captions put those in front.
"""

from __future__ import annotations

import random
from functools import cache

from glyphs import all_concepts

# Other words for a concept, the commonest first. No word may name two concepts; a test holds this.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "dog": ("corgi", "puppy", "hound", "beagle", "labrador", "terrier", "doggy"),
    "cat": ("kitten", "kitty", "tabby"),
    "tiger": ("bengal tiger",),
    "fox": ("vixen",),
    "bear": ("grizzly", "grizzly bear", "bear cub"),
    "panda": ("panda bear", "giant panda"),
    "koala": ("koala bear",),
    "rabbit": ("bunny", "hare", "bunny rabbit"),
    "mouse": ("rat",),
    "hamster": ("guinea pig", "gerbil"),
    "horse": ("pony", "stallion", "mare"),
    "rhinoceros": ("rhino",),
    "hippopotamus": ("hippo",),
    "camel": ("dromedary",),
    "llama": ("alpaca",),
    "cow": ("calf", "dairy cow"),
    "pig": ("piglet", "hog"),
    "sheep": ("lamb", "ewe", "ram"),
    "goat": ("billy goat",),
    "deer": ("stag", "fawn"),
    "monkey": ("chimp", "chimpanzee", "ape"),
    "kangaroo": ("wallaby",),
    "hedgehog": ("porcupine",),
    "squirrel": ("chipmunk",),
    "raccoon": ("racoon",),
    "chicken": ("hen",),
    "rooster": ("cockerel",),
    "chick": ("baby chick", "baby bird"),
    "duck": ("mallard", "drake"),
    "eagle": ("bald eagle", "hawk"),
    "parrot": ("macaw",),
    "frog": ("toad",),
    "crocodile": ("alligator", "croc"),
    "turtle": ("tortoise",),
    "lizard": ("gecko",),
    "snake": ("serpent", "python"),
    "dinosaur": ("brontosaurus", "sauropod", "brachiosaurus"),
    "dolphin": ("porpoise",),
    "octopus": ("kraken",),
    "lobster": ("crayfish",),
    "shrimp": ("prawn",),
    "butterfly": ("monarch butterfly",),
    "bug": ("caterpillar",),
    "bee": ("honeybee", "bumblebee"),
    "ladybug": ("ladybird",),
    "palm tree": ("palm", "coconut palm"),
    "pine tree": ("evergreen", "fir", "fir tree"),
    "tree": ("oak", "oak tree"),
    "mushroom": ("toadstool",),
    "clover": ("four leaf clover", "shamrock"),
    "maple leaf": ("autumn leaf",),
    "red apple": ("apple",),
    "orange": ("tangerine",),
    "kiwi": ("kiwi fruit",),
    "eggplant": ("aubergine",),
    "corn": ("ear of corn", "corn on the cob"),
    "pepper": ("chili pepper", "chili", "hot pepper"),
    "bread": ("loaf of bread",),
    "pancakes": ("stack of pancakes",),
    "hamburger": ("burger", "cheeseburger"),
    "pizza": ("slice of pizza", "pizza slice"),
    "ice cream": ("ice cream cone", "soft serve"),
    "doughnut": ("donut",),
    "cookie": ("biscuit",),
    "birthday cake": ("cake",),
    "chocolate bar": ("bar of chocolate",),
    "honey pot": ("jar of honey", "pot of honey"),
    "car": ("automobile", "sedan"),
    "taxi": ("cab", "taxicab"),
    "bus": ("coach",),
    "trolleybus": ("trolley",),
    "police car": ("patrol car", "cop car"),
    "fire engine": ("fire truck",),
    "truck": ("lorry", "delivery truck"),
    "racing car": ("race car",),
    "motorcycle": ("motorbike",),
    "scooter": ("kick scooter",),
    "bicycle": ("bike",),
    "train": ("railcar",),
    "locomotive": ("steam train", "steam engine"),
    "helicopter": ("chopper",),
    "airplane": ("plane", "aeroplane", "jet"),
    "rocket": ("spaceship", "rocket ship"),
    "flying saucer": ("ufo",),
    "sailboat": ("sailing boat", "yacht"),
    "ship": ("steamship", "cruise ship"),
    "canoe": ("kayak",),
    "sled": ("sledge", "toboggan"),
    "trumpet": ("horn", "cornet"),
    "guitar": ("electric guitar",),
    "violin": ("fiddle",),
    "saxophone": ("sax",),
    "drum": ("snare drum",),
    "piano": ("keyboard",),
    "accordion": ("squeezebox",),
    "flute": ("recorder",),
    "microphone": ("mic",),
    "teddy bear": ("teddy", "stuffed bear"),
    "football": ("american football",),
    "tennis ball": ("tennis racket",),
    "puzzle piece": ("jigsaw piece",),
    "robot": ("android",),
    "ghost": ("spook", "phantom"),
    "alien": ("extraterrestrial",),
    "pumpkin": ("jack-o-lantern",),
    "top hat": ("hat",),
    "glasses": ("spectacles", "eyeglasses"),
    "umbrella": ("parasol",),
    "lock": ("padlock",),
    "light bulb": ("lightbulb", "lamp"),
    "television": ("tv",),
    "telephone": ("phone",),
    "laptop": ("computer", "laptop computer"),
    "books": ("pile of books",),
    "scissors": ("pair of scissors",),
    "gift": ("present",),
    "trophy": ("golden cup",),
    "alarm clock": ("clock",),
    "hourglass": ("sand timer",),
    "backpack": ("rucksack", "school bag"),
    "t-shirt": ("shirt", "tee"),
    "high heel": ("high heeled shoe", "stiletto"),
    "ring": ("diamond ring", "wedding ring"),
    "gem": ("diamond", "jewel"),
    "bathtub": ("bath", "tub"),
    "teacup": ("cup of tea",),
    "beer mug": ("mug of beer", "beer"),
    "wine glass": ("glass of wine",),
    "cocktail": ("tropical drink",),
    "fire": ("flame",),
    "moon": ("crescent moon", "half moon"),
    "lightning": ("lightning bolt", "thunderbolt"),
    "earth": ("globe",),
    "planet": ("saturn",),
    "castle": ("fortress",),
    "house": ("cottage",),
    "church": ("chapel",),
}
SYNONYM_RATE = 0.3  # share of mentions of a concept with synonyms that use one

MAIN_WORDS = {"books": "stack of books"}  # 'books' alone is more than one book
NO_ARTICLE = {
    "grapes", "cherries", "peanuts", "pancakes", "glasses", "spectacles", "eyeglasses", "scissors",
    "fire", "lightning", "broccoli", "sushi", "corn", "bread", "corn on the cob", "soft serve", "saturn",
}  # fmt: skip
ALWAYS_THE = {"earth"}
UNCOUNTED = frozenset({
    "grapes", "cherries", "peanuts", "pancakes", "glasses", "scissors", "fire", "lightning", "broccoli",
    "sushi", "corn", "bread", "books", "earth",
})  # fmt: skip
"""Concepts of which captions never count several: already many, or not to be counted."""

SAME_IN_PLURAL = {"sheep", "fish", "deer", "shrimp"}
PLURALS = {
    "mouse": "mice", "snowman": "snowmen", "volcano": "volcanoes", "tomato": "tomatoes", "potato": "potatoes",
    "wolf": "wolves", "calf": "calves", "leaf": "leaves", "die": "dice",
}  # fmt: skip


def main_word(concept: str) -> str:
    """What captions call a concept when they use no synonym."""
    return MAIN_WORDS.get(concept, concept)


def choose_word(concept: str, rng: random.Random) -> str:
    """Choose how to call a concept; the first synonym is twice as likely as each other one."""
    synonyms = SYNONYMS.get(concept, ())
    if not synonyms or rng.random() >= SYNONYM_RATE:
        return main_word(concept)
    return rng.choice((synonyms[0], *synonyms))


def with_article(word: str) -> str:
    """Put the right article in front: 'a dog', 'an owl', 'grapes', 'the earth', 'a ufo', 'an orange car'."""
    if word in NO_ARTICLE:
        return word
    if word in ALWAYS_THE:
        return f"the {word}"
    vowel_sound = word[0] in "aeiou" and not word.startswith(("unicorn", "ufo", "ewe"))
    return f"an {word}" if vowel_sound else f"a {word}"


def plural(word: str) -> str:
    """More than one: 'two foxes', 'three cherries', 'two mice', 'two cups of tea'."""
    first, of, rest = word.partition(" of ")
    if of:
        return plural(first) + of + rest
    head, _, last = word.rpartition(" ")
    if last in SAME_IN_PLURAL:
        many = last
    elif last in PLURALS:
        many = PLURALS[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        many = last + "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        many = last[:-1] + "ies"
    else:
        many = last + "s"
    return f"{head} {many}".strip()


@cache
def concept_of_word() -> dict[str, str]:
    """Every word of the captions, singular or plural, to the concept that it names."""
    table: dict[str, str] = {}
    for concept in all_concepts():
        for word in (main_word(concept), *SYNONYMS.get(concept, ())):
            table[word] = concept
            if concept not in UNCOUNTED:
                table[plural(word)] = concept
    return table
