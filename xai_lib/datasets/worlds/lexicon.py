"""The words of the generated texts: opinions with their sign and strength, things, filler."""

from __future__ import annotations


def _listed(words: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(","))


# (sign, strong): adjectives that fit whatever is judged.
ADJECTIVES: dict[tuple[int, bool], tuple[str, ...]] = {
    (1, False): _listed(
        "good, nice, pleasant, likeable, enjoyable, charming, pretty, clever, convincing, polished,"
        " thoughtful, agreeable, satisfying, rewarding, graceful, lively, tasteful, decent,"
        " commendable, appealing, inviting, memorable"
    ),
    (1, True): _listed(
        "wonderful, superb, brilliant, magnificent, marvelous, fantastic, terrific, splendid,"
        " stunning, flawless, perfect, sublime, breathtaking, glorious, great, phenomenal,"
        " excellent, outstanding, exquisite, amazing, incredible, exceptional"
    ),
    (-1, False): _listed(
        "bad, dull, boring, weak, poor, bland, clumsy, tedious, mediocre, forgettable, messy,"
        " careless, disappointing, tiresome, pointless, lifeless, sloppy, shoddy, unpleasant,"
        " annoying, irritating, uninspired"
    ),
    (-1, True): _listed(
        "terrible, horrible, dreadful, dismal, pathetic, disgusting, hopeless, miserable, wretched,"
        " hideous, disgraceful, ghastly, horrendous, repulsive, laughable, catastrophic, awful,"
        " atrocious, abysmal, appalling, unbearable, insufferable"
    ),
}
# What a reviewer does: (past, base, third person).
FEELINGS: dict[tuple[int, bool], tuple[tuple[str, str, str], ...]] = {
    (1, False): (
        ("liked", "like", "likes"),
        ("enjoyed", "enjoy", "enjoys"),
        ("appreciated", "appreciate", "appreciates"),
        ("admired", "admire", "admires"),
    ),
    (1, True): (
        ("loved", "love", "loves"),
        ("adored", "adore", "adores"),
        ("cherished", "cherish", "cherishes"),
        ("worshipped", "worship", "worships"),
    ),
    (-1, False): (
        ("disliked", "dislike", "dislikes"),
        ("resented", "resent", "resents"),
        ("lamented", "lament", "laments"),
        ("regretted", "regret", "regrets"),
    ),
    (-1, True): (
        ("hated", "hate", "hates"),
        ("detested", "detest", "detests"),
        ("despised", "despise", "despises"),
        ("loathed", "loathe", "loathes"),
    ),
}
# What a thing does to the reviewer: (past, base).
EFFECTS: dict[tuple[int, bool], tuple[tuple[str, str], ...]] = {
    (1, False): (
        ("pleased", "please"),
        ("charmed", "charm"),
        ("impressed", "impress"),
        ("amused", "amuse"),
    ),
    (1, True): (
        ("thrilled", "thrill"),
        ("delighted", "delight"),
        ("enchanted", "enchant"),
        ("dazzled", "dazzle"),
    ),
    (-1, False): (
        ("bored", "bore"),
        ("annoyed", "annoy"),
        ("irritated", "irritate"),
        ("disappointed", "disappoint"),
    ),
    (-1, True): (
        ("appalled", "appal"),
        ("disgusted", "disgust"),
        ("infuriated", "infuriate"),
        ("horrified", "horrify"),
    ),
}
# What a thing is; none begins with a vowel, so that every one follows the article "a".
VERDICTS: dict[tuple[int, bool], tuple[str, ...]] = {
    (1, False): _listed("success, pleasure, treat, winner, hit, joy"),
    (1, True): _listed("triumph, masterpiece, marvel, wonder, revelation, sensation"),
    (-1, False): _listed("failure, mess, letdown, mistake, flop, chore"),
    (-1, True): _listed("disaster, catastrophe, nightmare, fiasco, disgrace, travesty"),
}
INTENSIFIERS = _listed(
    "very, truly, really, remarkably, thoroughly, extremely, absolutely, utterly"
)
SOFTENERS = _listed("fairly, quite, rather, somewhat, reasonably")
NEGATORS = _listed("not, never, hardly, no")

THINGS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "film": ("saw", "acting, story, plot, music, ending, dialogue, camera work, script, cast, "
             "editing, opening scene",
             ("It runs for almost {number} minutes.", "It was shot in {place} {when}.",
              "There is a version with subtitles.", "The screen was on the second floor.")),
    "novel": ("read", "story, plot, ending, prose, opening chapter, dialogue, translation, "
              "main character, cover, narration",
              ("It has about {number} pages.", "The author lives in {place}.",
               "I borrowed it from {who} {when}.", "It is the third part of a series.")),
    "restaurant": ("tried", "food, service, soup, wine list, dessert, bread, seating, fish, menu, "
                   "kitchen",
                   ("We had a table for {number} by the window.", "It closes at ten {when}.",
                    "We ordered the set menu and some water.", "The place seats {number} guests.")),
    "hotel": ("visited", "room, bed, breakfast, service, pool, view, shower, lobby, location, "
              "front desk",
              ("We stayed for {number} nights.", "Our floor was the fourth one.",
               "It stands close to the station.", "The key is a small card.")),
    "phone": ("bought", "screen, battery, camera, speaker, keyboard, software, casing, charger, "
              "sound, display",
              ("It weighs about {number} grams.", "It comes in blue, grey and black.",
               "I ordered it from {place} {when}.", "The box holds a cable and a manual.")),
    "concert": ("attended", "singer, band, sound, lighting, encore, choir, violin solo, program, "
                "venue, drummer",
                ("It started at eight {when}.", "There were about {number} people in the hall.",
                 "We sat in row {number}.", "The doors opened an hour before.")),
    "play": ("watched", "acting, costume design, stage design, direction, first act, second act, "
             "lead actor, dialogue, lighting, script",
             ("It has {number} scenes and one break.", "The theatre is near {place}.",
              "It is on until the end of the month.", "We sat on the balcony.")),
    "museum": ("visited", "collection, audio guide, exhibition, gift shop, main hall, layout, "
               "sculpture room, guided tour, ticket desk, coat room",
               ("The tour takes {number} minutes.", "It opens at nine {when}.",
                "The building is from the last century.", "We left our coats at the entrance.")),
    "game": ("played", "artwork, story, gameplay, music, tutorial, level design, combat system, "
             "online mode, interface, soundtrack",
             ("I spent about {number} hours on it.", "It has {number} levels.",
              "It needs a recent computer.", "The studio comes from {place}.")),
    "course": ("took", "lecturer, teaching, reading list, homework, final project, course book, "
               "pacing, feedback, seminar, classroom",
               ("There are {number} lessons in all.", "It takes place {when}.",
                "The group had {number} students.", "The exam is held in {place}.")),
    "bicycle": ("bought", "frame, saddle, gearbox, braking, handling, steering, paintwork, "
                "suspension, bell, front light",
                ("It weighs about {number} pounds.", "I ride it to the office {when}.",
                 "It comes with a lock and a pump.", "The shop is in {place}.")),
    "camera": ("tested", "lens, viewfinder, screen, autofocus, battery, grip, menu, shutter, "
               "image quality, zoom",
               ("It takes {number} pictures a minute.", "I use it {when}.",
                "It came with a strap and a bag.", "The sensor is made in {place}.")),
}  # fmt: skip

OTHERS = _listed(
    "the weather that day, the traffic on the bridge, the bus ride home, the queue outside,"
    " the parking lot, my brother's garden, the meeting at work, my old car, the news that morning,"
    " the football match, the walk from the station, my uncle's wedding, the train to the coast,"
    " our neighbor's dog, the rain in the evening, my last job, the airport, the taxi driver,"
    " the snow on the road, my cousin's flat, the heat in the city, my sister's new hat,"
    " the view from my office, the street market, our summer holiday, the construction site nearby,"
    " my aunt's birthday party, the river in spring, the election, my first school"
)
WEATHER = _listed("weather, traffic, heat, wind, fog, rain, train connection, road")
LIKINGS = _listed(
    "rain, crowds, airports, spinach, chess, long walks, winter, loud neighbors, tea, Mondays,"
    " the seaside, horses, shopping, old cars, thunder, raw onions"
)
PEOPLE = _listed(
    "my sister, my brother, a friend from work, my uncle, my aunt, two colleagues, my parents,"
    " our neighbors, a former teacher, my cousin, my daughter, her husband, my roommate, the twins"
)
PERSONS = _listed(
    "my sister, my brother, my uncle, my aunt, my cousin, my daughter, our neighbor, my boss,"
    " the man next to us, a woman in the line, my dentist, our landlord"
)
TIMES = _listed(
    "on Tuesday evening, in early March, last weekend, on a Sunday, during the holidays,"
    " two weeks ago, in the afternoon, after work, before lunch, on Friday, in October,"
    " around noon, at the end of June, last night, on weekdays"
)
PLACES = _listed(
    "the old town, a small village, the north, our street, Canada, the harbor, Portugal, the city,"
    " the mountains, Japan, the suburbs, Norway, the market square, Chicago"
)
NUMBERS = _listed(
    "twelve, twenty, thirty, forty, fifteen, eight, ninety, sixteen, eleven, fifty, six, nine"
)
FILLER = (
    "{Who} came along {when}.",
    "We paid {number} dollars and kept the receipt.",
    "{Who} mentioned it to me {when}.",
    "It took us {number} minutes to get there from {place}.",
    "I wrote this down {when}.",
    "{Who} used to live in {place}.",
    "There is a sign with an arrow near {place}.",
    "I had heard of it from {who}.",
    "We went home at {number} past ten.",
    "{When} I showed the photos to {who}.",
    "The price is about {number} dollars.",
    "{Who} wore a green coat and carried an umbrella.",
    "I am a nurse and I work in {place}.",
    "{When} we drank coffee with {who}.",
    "This is entry {number} on this page.",
    "Somebody asked for the way to {place}.",
    "I kept the ticket in a drawer.",
    "{Who} took a train to {place} {when}.",
    "The leaflet has {number} pages and a map.",
    "My notes from that week are short.",
    "{Who} called me {when} from {place}.",
    "A second visit is planned for the autumn.",
    "We talked about it with {who} for {number} minutes.",
    "The address is printed on the back.",
)
