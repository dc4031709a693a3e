#include "eval/prose.h"

#include "base/draw.h"

#include <stdio.h>
#include <string.h>

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

static const char *const adjectives[] = {
    "amber",   "ancient",  "arctic",  "bitter",  "bold",    "brave",  "bright", "brisk",   "broken",
    "calm",    "careful",  "clever",  "coastal", "copper",  "cosmic", "crisp",  "curious", "daring",
    "distant", "dusty",    "eager",   "early",   "fair",    "famous", "fierce", "final",   "foggy",
    "formal",  "frosty",   "gentle",  "gilded",  "golden",  "grand",  "gray",   "hasty",   "heavy",
    "hidden",  "hollow",   "humble",  "icy",     "idle",    "ivory",  "jolly",  "keen",    "lively",
    "lonely",  "lunar",    "mellow",  "merry",   "mild",    "misty",  "modern", "narrow",  "nimble",
    "noble",   "northern", "patient", "plain",   "polite",  "proud",  "purple", "quiet",   "rapid",
    "remote",  "ripe",     "rough",   "round",   "royal",   "rural",  "rusty",  "scarlet", "secret",
    "sharp",   "silent",   "silver",  "simple",  "sleepy",  "slim",   "smooth", "snowy",   "solar",
    "solid",   "stable",   "steady",  "steep",   "strange", "strict", "sudden", "sunny",   "swift",
    "tame",    "tender",   "tidy",    "urban",   "velvet",  "violet", "warm",   "wooden",  "young",
    "zesty",
};
static const char *const nouns[] = {
    "acorn",    "airport",    "almond",  "anchor",   "apple",   "apron",    "arrow",    "badge",
    "balcony",  "banjo",      "basket",  "bell",     "berry",   "blanket",  "boat",     "bottle",
    "bridge",   "bucket",     "button",  "cabin",    "camel",   "candle",   "canyon",   "carpet",
    "castle",   "cellar",     "chair",   "cherry",   "circle",  "clock",    "cloud",    "compass",
    "coral",    "cottage",    "crown",   "cup",      "curtain", "desert",   "diamond",  "dolphin",
    "door",     "dragon",     "drum",    "eagle",    "engine",  "falcon",   "feather",  "fence",
    "ferry",    "fiddle",     "flag",    "flute",    "forest",  "fountain", "fox",      "garden",
    "gate",     "giraffe",    "glacier", "goat",     "grape",   "guitar",   "hammer",   "harbor",
    "helmet",   "heron",      "hill",    "horse",    "island",  "jacket",   "jungle",   "kettle",
    "key",      "kite",       "ladder",  "lake",     "lamp",    "lantern",  "lemon",    "letter",
    "library",  "lighthouse", "lion",    "lizard",   "magnet",  "mango",    "map",      "maple",
    "market",   "meadow",     "melon",   "mill",     "mirror",  "monkey",   "moon",     "moth",
    "mountain", "museum",     "nest",    "notebook", "oak",     "ocean",    "olive",    "onion",
    "orchard",  "otter",      "oven",    "owl",      "oyster",  "palace",   "panda",    "parade",
    "parrot",   "peach",      "pearl",   "pebble",   "pencil",  "pepper",   "piano",    "pine",
    "planet",   "plum",       "pond",    "pony",     "potato",  "pumpkin",  "puzzle",   "rabbit",
    "radio",    "raven",      "ribbon",  "river",    "robin",   "rocket",   "roof",     "rose",
    "saddle",   "salmon",     "sandal",  "scarf",    "school",  "shell",    "ship",     "spider",
    "spoon",    "squirrel",   "statue",  "stone",    "stool",   "street",   "table",    "temple",
    "tent",     "thunder",    "tiger",   "tower",    "train",   "tree",     "trumpet",  "tulip",
    "tunnel",   "turtle",     "valley",  "vase",     "village", "violin",   "wagon",    "walnut",
    "watch",    "whale",      "wheel",   "willow",   "window",  "wolf",     "workshop", "zebra",
};
static const char *const names[] = {
    "Ada",    "Agnes",  "Albert", "Amir",   "Anton", "Barbara", "Bruno",  "Carla",
    "Cedric", "Clara",  "Cyril",  "Dalia",  "Diego", "Edith",   "Edwin",  "Elena",
    "Emil",   "Esther", "Farid",  "Felix",  "Fiona", "Gerda",   "Greta",  "Hana",
    "Harold", "Hugo",   "Igor",   "Ingrid", "Iris",  "Ivan",    "Jana",   "Jasper",
    "Joan",   "Jonas",  "Judith", "Karim",  "Klara", "Laura",   "Leo",    "Mabel",
    "Magnus", "Marta",  "Milan",  "Nadia",  "Nora",  "Olga",    "Omar",   "Oscar",
    "Paula",  "Pavel",  "Petra",  "Rafael", "Rita",  "Ruben",   "Selma",  "Simon",
    "Sonia",  "Tariq",  "Tessa",  "Theo",   "Ulla",  "Viktor",  "Walter", "Yusuf",
};
static const char *const surnames[] = {
    "Aldous",    "Barlow",  "Bexley",    "Carver", "Dunmore",   "Ellery",    "Farrow",
    "Garland",   "Hobson",  "Ingram",    "Jukes",  "Kestrel",   "Lindqvist", "Marlow",
    "Norwood",   "Okafor",  "Pemberton", "Quill",  "Rasmussen", "Sorrel",    "Thackeray",
    "Underhill", "Vasquez", "Whitlock",  "Yarrow", "Zeller",
};
static const char *const towns[] = {
    "Aldbrook",  "Ashford",    "Barrow",    "Birchwood", "Bramley",   "Caldwell",  "Carnforth",
    "Dunmore",   "Eastwick",   "Elmhurst",  "Fairhaven", "Fernley",   "Foxton",    "Glenrock",
    "Halden",    "Harrowgate", "Highfield", "Holmwood",  "Kelby",     "Kingsmead", "Lakeport",
    "Larkhill",  "Lindale",    "Longmere",  "Marwick",   "Millbrook", "Moorgate",  "Northam",
    "Oakridge",  "Penfield",   "Redcliff",  "Rosedale",  "Saltmarsh", "Southgate", "Stonebury",
    "Summerton", "Thornbury",  "Wexley",    "Windmere",  "Woodvale",
};
static const char *const verbs[] = {
    "painted", "repaired",  "borrowed",     "described", "measured", "carried", "sold",
    "guarded", "polished",  "sketched",     "abandoned", "admired",  "studied", "moved",
    "hid",     "inherited", "photographed", "restored",  "counted",  "forgot",
};
static const char *const whens[] = {
    "in the spring",      "before breakfast",    "on a rainy evening",  "after the long winter",
    "during the harvest", "while others slept",  "late at night",       "without telling anyone",
    "for a small fee",    "with great patience", "for the second time", "against all advice",
};
static const char *const trades[] = {
    "a clockmaker", "a schoolteacher", "a bishop",  "a sailor",    "a botanist", "a printer",
    "a surgeon",    "a carpenter",     "a painter", "a librarian", "a farmer",   "a judge",
};
static const char *const dishes[] = {
    "dumpling", "pancake", "burger", "omelette", "pudding", "stew",    "noodle", "sandwich",
    "salad",    "curry",   "pie",    "soup",     "waffle",  "risotto", "taco",   "muffin",
};
static const char *const cooked[] = {
    "smoked", "pickled", "roasted", "spicy", "frozen", "caramel", "beef",   "mushroom",
    "lentil", "pumpkin", "walnut",  "lemon", "salmon", "cheese",  "garlic", "apricot",
};

#define PICK(list, state) ((list)[draw_next(state) % N_OF(list)])

/* A slot of a pattern: a adjective, n noun, p person, t town, v verb, w when, j trade. */
static const char *slot(char kind, const char *who, uint64_t *state)
{
    switch (kind) {
    case 'a':
        return PICK(adjectives, state);
    case 'n':
        return PICK(nouns, state);
    case 'p':
        return PICK(names, state);
    case 't':
        return PICK(towns, state);
    case 'v':
        return PICK(verbs, state);
    case 'w':
        return PICK(whens, state);
    case 'j':
        return PICK(trades, state);
    default:
        return who;
    }
}

/* The pattern with each %x filled. What does not fit is cut at the end; no pattern comes near. */
static void fill(const char *pattern, const char *who, uint64_t *state,
                 char ret[PROSE_SENTENCE_CAP])
{
    size_t n = 0;

    for (const char *p = pattern; *p && n + 1 < PROSE_SENTENCE_CAP; p++) {
        if (*p == '%') {
            int wrote = snprintf(ret + n, PROSE_SENTENCE_CAP - n, "%s", slot(*++p, who, state));

            n +=
                (size_t)wrote < PROSE_SENTENCE_CAP - n ? (size_t)wrote : PROSE_SENTENCE_CAP - n - 1;
        } else {
            ret[n++] = *p;
        }
    }
    ret[n] = '\0';
}

/* One of n patterns, filled; who: of %W. It begins with a capital. */
static const char *say(const char *const *patterns, size_t n, const char *who, uint64_t state,
                       char ret[PROSE_SENTENCE_CAP])
{
    const char *pattern = patterns[draw_next(&state) % n];

    fill(pattern, who, &state, ret);
    if (ret[0] >= 'a' && ret[0] <= 'z')
        ret[0] = (char)(ret[0] - 'a' + 'A');
    return ret;
}

const char *prose_sentence(uint64_t seed, uint64_t index, char ret[PROSE_SENTENCE_CAP])
{
    static const char *const patterns[] = {
        "%p saw %a %n pictures near %t, and nobody believed it.",
        "The %n of %t is %a, but the %n beside it is %a.",
        "In %t people talk about the %a %n that %p %v %w.",
        "%p and %p went from %t to %t with a %n and a %a %n.",
        "Nobody knew why %p had left the %n by the %n %w.",
        "%w, so the story goes, %p %v the %a %n of %t.",
        "Every visitor of %t is shown the %n which %p once %v.",
        "A %a %n stood where the road from %t to %t crosses the %n.",
        "\"That %n is too %a,\" said %p, and %v the %n instead.",
        "When the %n broke, %p %v a %a one for the %n in %t.",
        "It was %p, %j from %t, who %v the %n %w.",
        "The %a %n belonged to %p until %p of %t %v it.",
        "Between the %n and the %n there was only a %a %n.",
        "%p wrote to %p that the %n had become %a %w.",
        "Few remember that %t was famous for its %a %n and its %n.",
        "The council of %t, which met %w, wanted a %n as %a as the one in %t.",
    };

    return say(patterns, N_OF(patterns), "", draw_at(seed, index), ret);
}

const char *prose_life(const char *who, uint64_t seed, uint64_t index, char ret[PROSE_SENTENCE_CAP])
{
    static const char *const patterns[] = {
        "%W was born in %t as the child of %j and %j.",
        "As a young person %W %v the %a %n of %t.",
        "%W worked as %j in %t, and later in %t.",
        "Letters of %W to %p mention a %a %n again and again.",
        "The historian %p of %t calls %W \"%a and %a\".",
        "%w, %W %v a %n that can still be seen in %t.",
        "A %n in %t bears the name of %W.",
        "%W was succeeded by %p, %j of %t.",
        "It is said that %W %v the %n %w.",
        "With %p of %t, %W founded a %n for %a people.",
    };

    return say(patterns, N_OF(patterns), who, draw_at(seed, index), ret);
}

const char *prose_person(uint64_t seed, uint64_t index, char ret[PROSE_KEY_CAP])
{
    uint64_t state = draw_at(seed, index);
    const char *first = PICK(names, &state), *middle = PICK(names, &state);

    (void)snprintf(ret, PROSE_KEY_CAP, "%s %s %s", first, middle, PICK(surnames, &state));
    return ret;
}

/* An odd step through all pairs from where the seed says: none comes twice before all came. 7919 is
 * a prime that divides neither list's length, so the step goes through all of them. */
const char *prose_key(uint64_t seed, uint64_t index, char ret[PROSE_KEY_CAP])
{
    uint64_t all = N_OF(adjectives) * N_OF(nouns);
    uint64_t at = (draw_mix(seed) % all + index % all * UINT64_C(7919)) % all;

    (void)snprintf(ret, PROSE_KEY_CAP, "%s-%s", adjectives[at % N_OF(adjectives)],
                   nouns[at / N_OF(adjectives)]);
    return ret;
}

const char *prose_food(uint64_t seed, uint64_t index, char ret[PROSE_KEY_CAP])
{
    uint64_t state = draw_at(seed, index);
    const char *how = PICK(cooked, &state);

    (void)snprintf(ret, PROSE_KEY_CAP, "%s %s", how, PICK(dishes, &state));
    return ret;
}

/* 9 * low numbers of n digits begin with low; the remainder is biased by less than one in 2^64 / (9
 * * low). */
const char *prose_number(uint64_t seed, uint64_t index, unsigned n, char ret[PROSE_KEY_CAP])
{
    uint64_t low = 1;

    for (unsigned i = 1; i < n; i++)
        low *= 10;
    (void)snprintf(ret, PROSE_KEY_CAP, "%llu",
                   (unsigned long long)(low + draw_at(seed, index) % (9 * low)));
    return ret;
}

/* Of version 4: all digits but one and a half are drawn. */
const char *prose_uuid(uint64_t seed, uint64_t index, char ret[PROSE_UUID_CAP])
{
    uint64_t a = draw_at(seed, 2 * index), b = draw_at(seed, 2 * index + 1);

    (void)snprintf(ret, PROSE_UUID_CAP, "%08x-%04x-4%03x-%04x-%012llx", (unsigned)(a >> 32),
                   (unsigned)(a >> 16 & 0xffff), (unsigned)(a & 0xfff),
                   (unsigned)(0x8000 | (b >> 48 & 0x3fff)),
                   (unsigned long long)(b & UINT64_C(0xffffffffffff)));
    return ret;
}
