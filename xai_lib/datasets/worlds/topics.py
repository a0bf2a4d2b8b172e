"""Generated messages on twenty topics whose rationale is known: the topic's own words."""

from __future__ import annotations

from collections.abc import Iterable

from xai_lib.datasets.base import TextSample
from xai_lib.datasets.worlds.lexicon import FILLER, PERSONS
from xai_lib.datasets.worlds.wording import Draw, free_words, joined, marked
from xai_lib.errors import InputError

_FEWEST_WORDS, _MOST_WORDS = 20, 40
# Disjoint lists of nouns that stand without an article.
TOPICS: dict[str, tuple[str, ...]] = {
    name: tuple(word.strip() for word in words.split(","))
    for name, words in {
        "graphics": "pixels, shaders, rendering, textures, polygons, rasters, bitmaps, raytracing, "
        "meshes, palettes, antialiasing, vertices",
        "operating systems": "kernels, bootloaders, filesystems, daemons, processes, drivers, "
        "shells, threads, syscalls, scheduling, paging, sockets",
        "hardware": "motherboards, processors, floppies, modems, mainboards, peripherals, "
        "harddisks, controllers, jumpers, cartridges, heatsinks, mousepads",
        "cryptography": "ciphers, encryption, decryption, passphrases, keys, signatures, hashes, "
        "certificates, codebreaking, steganography, randomness, eavesdroppers",
        "electronics": "transistors, capacitors, resistors, diodes, voltage, soldering, circuits, "
        "amplifiers, oscillators, inductors, multimeters, relays",
        "medicine": "antibiotics, symptoms, vaccines, surgery, diabetes, diagnoses, dosages, "
        "infections, allergies, pharmacies, asthma, migraines",
        "space": "orbits, satellites, rockets, galaxies, astronauts, telescopes, comets, lunar "
        "landers, spacecraft, asteroids, nebulae, shuttles",
        "cars": "sedans, engines, mileage, dashboards, carburetors, headlights, airbags, "
        "convertibles, windshields, odometers, gaskets, radiators",
        "motorcycles": "helmets, sidecars, choppers, handlebars, motorbikes, scooters, kickstands, "
        "throttles, fairings, bikers, sprockets, wheelies",
        "baseball": "pitchers, innings, homeruns, shortstops, batters, outfielders, dugouts, "
        "fastballs, catchers, umpires, bunts, strikeouts",
        "hockey": "pucks, goalies, slapshots, playoffs, skaters, rinks, faceoffs, powerplays, "
        "defensemen, zambonis, penalties, overtime",
        "religion": "prayers, scripture, churches, saints, sermons, psalms, baptism, theology, "
        "pilgrims, monasteries, miracles, gospels",
        "politics": "senators, ballots, parliaments, coalitions, taxation, lobbyists, campaigns, "
        "treaties, referendums, ministers, congress, diplomats",
        "law": "lawsuits, attorneys, verdicts, statutes, juries, plaintiffs, contracts, felonies, "
        "testimony, appeals, defendants, subpoenas",
        "cooking": "recipes, garlic, ovens, marinades, saucepans, seasoning, dumplings, dough, "
        "simmering, basil, casseroles, cinnamon",
        "gardening": "seedlings, compost, tulips, pruning, mulch, hedges, fertilizer, shrubs, "
        "perennials, weeds, greenhouses, tomatoes",
        "music": "melodies, guitars, orchestras, chords, rhythms, sonatas, drums, harmonies, "
        "pianos, symphonies, clarinets, basslines",
        "chemistry": "molecules, acids, catalysts, polymers, isotopes, titration, solvents, "
        "reagents, crystals, enzymes, oxidation, electrolysis",
        "finance": "dividends, mortgages, stocks, bonds, inflation, portfolios, investors, "
        "brokers, currencies, hedging, pensions, audits",
        "education": "classrooms, exams, homework, curricula, tutoring, scholarships, textbooks, "
        "kindergartens, lectures, teachers, diplomas, grades",
    }.items()
}
TOPIC_CLASSES: tuple[str, ...] = tuple(TOPICS)
_TOPIC_OF = {
    word: name for name, entries in TOPICS.items() for entry in entries for word in entry.split()
}
_FRAMES = (
    "I have a question about {0}.",
    "does anybody here know more about {0} and {1}?",
    "yesterday we spoke about {0} for an hour.",
    "{person} wrote a long article on {0}.",
    "the main subject of this thread is {0}.",
    "I spent the weekend with {0} and did not sleep much.",
    "there is a new book on {0} in the library.",
    "please tell me what you think of {0}.",
    "my first post here dealt with {0}, this one deals with {1}.",
    "we compared {0} with {1} and took notes.",
    "the last chapter explains {0}.",
    "as far as {0} are concerned, I am a beginner.",
    "can somebody send me a list of {0}?",
    "without {0} the whole thing makes little sense.",
    "{person} keeps asking me about {0}.",
    "the club meets each month because of {0}.",
    "a short text about {0} is attached.",
    "most of my messages mention {0} in some way.",
)
_ASIDES = (
    '{person} answered: "I only care about {0}."',
    'a reply said: "this is all about {0} and {1}."',
    'the line below is a quote: "I have a question about {0}."',
    '{person} shouted "{0}" across the room.',
    '"please tell me what you think of {0}" was the next message.',
    'the notice on the door says "{0} and {1}".',
)
_ORDINARY = (
    "thanks in advance for any help.",
    "I am new to this group.",
    "sorry for the long message.",
    "please reply by mail, since I am away next week.",
    "I could not find this in the archive.",
    "the rest can wait.",
    "let me explain what happened.",
)


def topic_label(phrases: Iterable[str]) -> int:
    """Return the label of a message from the phrases of its rationale: the topic of their words."""
    words = " ".join(phrases).lower().split()
    found = {_TOPIC_OF[word] for word in words if word in _TOPIC_OF}
    if len(found) != 1:
        raise InputError(f"The words {words} are of {len(found)} topics, expected one.")
    return TOPIC_CLASSES.index(found.pop())


class Topics:
    """A seeded set of n messages on one of twenty topics; message i depends on seed and i alone.

    Two to four nouns of the topic stand in sentences that could be about anything. The planted
    rule: words within quotation marks are somebody else's and decide nothing; their topic is drawn
    from all twenty, independently of the label. So the text outside the rationale is independent
    of the label, and the label a function of the rationale alone (`topic_label`).

    aside: True or False puts such a quotation into every or no message; None draws it.
    """

    class_names = TOPIC_CLASSES

    def __init__(self, n: int, seed: object = 0, aside: bool | None = None):
        if n < 1:
            raise InputError(f"Topics need n >= 1, got n={n}.")
        self.n, self.seed, self.aside = n, seed, aside

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> TextSample:
        index = range(self.n)[index]
        draw = Draw("topic", self.seed, index)
        label = draw.pick(range(len(TOPIC_CLASSES)))
        own = [marked(noun) for noun in draw.some(TOPICS[TOPIC_CLASSES[label]], 4)]
        frames = draw.some(_FRAMES, 2)
        sentences = [
            frame.format(*own[2 * i :], person=draw.pick(PERSONS)) for i, frame in enumerate(frames)
        ]
        drawn = draw.chance(0.5)
        if drawn if self.aside is None else self.aside:
            strange = draw.some(TOPICS[draw.pick(TOPIC_CLASSES)], 2)
            sentences.append(draw.pick(_ASIDES).format(*strange, person=draw.pick(PERSONS)))
        fewest = draw.pick(range(_FEWEST_WORDS, _MOST_WORDS))
        spare = [draw.filled(filler) for filler in draw.some((*FILLER, *_ORDINARY), 5)]
        # Nouns are of one or two words: those of the rationale do not count for the length.
        while spare and (len(sentences) < 3 or free_words(sentences) < fewest):
            if len(sentences) == 6:
                break
            sentences.append(spare.pop())
        text, rationale = joined(draw.some(sentences, len(sentences)))
        return TextSample(f"message-{index:05d}", text, label=label, rationale=rationale)
