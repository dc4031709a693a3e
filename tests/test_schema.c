/* tests/test_schema.c - would catch: a text that a schema's grammar has and the schema does not
 * allow, or one that it should have; a keyword that is neither enforced nor refused; an error that
 * does not say where. tests/test_schemas.sh compares texts with Python's jsonschema. */
#include "engine/text/match.h"
#include "engine/text/schema.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool has(const struct grammar *g, const char *text)
{
    static struct match m[1];
    bool r;

    match_start(m, g);
    r = match_push(m, (const uint8_t *)text, strlen(text)) == 0 && m->ends;
    assert_int_not_equal(m->err, -E2BIG);
    return r;
}

static const struct {
    const char *schema, *yes[7], *no[10];
} cases[] = {
    { "true",
      { "1", "{\"a\": [1, \"x\", null]}", "\"\xc3\xa9\\n\\u00e9\"", "-1.5e3", "[\n  true\n]" },
      { "", "01", "{a:1}", "[1,]", "'x'", "\"\n\"", "\"\\ud800\"", "nul" } },
    { "{\"type\":\"string\"}", { "\"\"", "\"a b\"" }, { "1", "null", "\"" } },
    { "{\"type\":\"integer\"}",
      { "0", "-7", "123456789012345" },
      { "1.0", "1e3", "00", "-", "-0", "1234567890123456" } },
    { "{\"type\":\"number\"}", { "0", "-7.25", "1e5", "1.5E-10" }, { ".5", "1.", "+1", "1e" } },
    { "{\"type\":[\"string\",\"null\"]}", { "\"x\"", "null" }, { "1", "{}" } },
    { "{\"type\":\"boolean\"}", { "true", "false" }, { "null", "True" } },
    { "{\"enum\":[\"a\",1,null,{\"k\":[1,2]},\"a/b\"]}",
      { "\"a\"", "1", "null", "{\"k\":[1,2]}", "\"a/b\"" },
      { "\"b\"", "2", "{}" } },
    { "{\"type\":\"string\",\"enum\":[\"a\",1]}", { "\"a\"" }, { "1" } },
    { "{\"const\":1.50}", { "1.50" }, { "1", "2" } },
    { "{\"type\":\"integer\",\"minimum\":-13,\"maximum\":105}",
      { "-13", "-9", "0", "9", "10", "99", "105" },
      { "-14", "-20", "106", "110", "1000", "-100", "-0" } },
    { "{\"type\":\"integer\",\"exclusiveMinimum\":9,\"exclusiveMaximum\":21}",
      { "10", "19", "20" },
      { "9", "21", "1", "2", "-10", "100" } },
    { "{\"type\":\"integer\",\"minimum\":998}",
      { "998", "999", "1000", "99999" },
      { "997", "1", "-998" } },
    { "{\"type\":\"integer\",\"maximum\":-5}", { "-5", "-6", "-10", "-55" }, { "-4", "5", "0" } },
    { "{\"minimum\":2.5,\"type\":\"integer\",\"maximum\":7.9}", { "3", "7" }, { "2", "8" } },
    { "{\"type\":\"number\",\"exclusiveMinimum\":0,\"maximum\":10}",
      { "0.5", "0.001", "1", "9.99", "10" },
      { "0", "0.0", "-1", "10.1", "11", "1e3", "-0" } },
    { "{\"type\":\"number\",\"minimum\":-3,\"exclusiveMaximum\":2}",
      { "-3", "-2.9", "0", "-0.5", "1.99" },
      { "2", "2.0", "-3.1", "-4", "5" } },
    { "{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
      { "\"ab\"", "\"abc\"", "\"\xc3\xa9\xf0\x9f\xa6\x99\"", "\"\\n\\u0041\"" },
      { "\"\"", "\"a\"", "\"abcd\"", "\"\\n\"" } },
    { "{\"type\":\"string\",\"minLength\":2}", { "\"ab\"", "\"abcdefgh\"" }, { "\"a\"" } },
    { "{\"pattern\":\"^[a-c]{2,3}\\\\d?$\"}",
      { "\"ab\"", "\"abc7\"" },
      { "\"a\"", "\"abd\"", "\"xab\"", "\"ab77\"" } },
    { "{\"pattern\":\"b+\"}", { "\"b\"", "\"abba\"", "\"\\\"b\"" }, { "\"\"", "\"ac\"" } },
    { "{\"pattern\":\"^(?:a|bc)*$|^x\"}",
      { "\"\"", "\"abca\"", "\"xyz\"" },
      { "\"b\"", "\"yx\"" } },
    { "{\"pattern\":\"^[^a-z]\\\\.[\\\\w-]+?\\\"$\"}",
      { "\"A.x-\\\"\"", "\"\\n.x\\\"\"" },
      { "\"a.x\\\"\"", "\"A.x\"" } },
    { "{\"pattern\":\"^[^\\\\s]$\"}",
      { "\"a\"", "\"\xc3\xa9\"", "\"\xe4\xb8\xad\"" },
      { "\" \"", "\"\\n\"", "\"\xc2\x85\"", "\"\xc2\xa0\"", "\"\xe3\x80\x80\"",
        "\"\xef\xbb\xbf\"" } },
    { "{\"pattern\":\"^[^\\\\S]$\"}",
      { "\" \"", "\"\\n\"" },
      { "\"a\"", "\"\xc3\xa9\"", "\"\\u000e\"", "\"\\u001c\"" } },
    { "{\"pattern\":\"^[^\\\\D]$\"}", { "\"7\"" }, { "\"a\"", "\"\xc3\xa9\"", "\"\xdb\xb0\"" } },
    { "{\"pattern\":\"^[^\\\\W]$\"}", { "\"a\"", "\"_\"" }, { "\"-\"", "\"\xc3\xa9\"" } },
    { "{\"pattern\":\"^[^\\\\d]$\"}", { "\"a\"", "\" \"" }, { "\"7\"", "\"\xdb\xb0\"" } },
    { "{\"pattern\":\"^[^\\\\w!]$\"}", { "\"-\"", "\" \"" }, { "\"a\"", "\"!\"", "\"\xc3\xa9\"" } },
    { "{\"format\":\"date-time\"}",
      { "\"2024-02-28T23:59:59Z\"", "\"2024-12-31T00:00:00.5+01:00\"" },
      { "\"2024-02-30T00:00:00Z\"", "\"2024-13-01T00:00:00Z\"", "\"2024-01-01\"",
        "\"2024-04-31T00:00:00Z\"" } },
    { "{\"format\":\"date\"}",
      { "\"2024-01-31\"", "\"2024-04-30\"" },
      { "\"2024-04-31\"", "\"0000-01-01\"", "\"24-1-1\"" } },
    { "{\"format\":\"uuid\"}", { "\"01234567-89ab-cdef-0123-456789abcdef\"" }, { "\"0123\"" } },
    { "{\"format\":\"ipv4\"}",
      { "\"0.10.199.255\"" },
      { "\"256.1.1.1\"", "\"1.1.1\"", "\"01.1.1.1\"" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":"
      "\"string\"},"
      "\"c\":{\"type\":\"null\"}},\"required\":[\"b\"]}",
      { "{\"b\":\"\"}", "{\"a\": 1, \"b\": \"x\"}", "{\"a\":1,\"b\":\"x\",\"c\":null}",
        "{\n  \"b\": \"x\",\n  \"c\": null\n}" },
      { "{}", "{\"a\":1}", "{\"b\":\"x\",\"a\":1}", "{\"b\":\"\",\"d\":1}", "{\"a\":1\"b\":\"\"}",
        "{,\"b\":\"\"}", "{\"b\":\"\",}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"additionalProperties\":"
      "{\"type\":\"boolean\"}}",
      { "{}", "{\"a\":1}", "{\"a\":1,\"b\":true}", "{\"ab\":false}", "{\"\":true,\"b\":true}" },
      { "{\"a\":true}", "{\"b\":1}", "{\"b\":true,\"a\":true}", "{\"\\u0061\":true}" } },
    { "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}",
      { "{}", "{\"x\":1,\"y\":2}" },
      { "{\"x\":\"\"}", "{1:1}" } },
    { "{\"type\":\"object\",\"additionalProperties\":false}", { "{}", "{ }" }, { "{\"x\":1}" } },
    { "{\"type\":\"object\",\"required\":[\"x\"],\"additionalProperties\":{\"type\":\"integer\"}}",
      { "{\"x\":1}", "{\"x\":1,\"y\":2}" },
      { "{}", "{\"y\":1}", "{\"x\":\"\"}" } },
    { "{\"properties\":{\"a\":false,\"q\\\"\\\\\":{\"const\":1}}}",
      { "{}", "{\"q\\\"\\\\\":1}" },
      { "{\"a\":1}", "{\"q\":1}" } },
    /* A reference to what no value satisfies is as good as that in its place. */
    { "{\"properties\":{\"a\":{\"$ref\":\"#/$defs/x\"},\"b\":{\"const\":1},\"c\":{\"$ref\":\"#/"
      "$defs/"
      "x\"}},\"$defs\":{\"x\":{\"enum\":[]}}}",
      { "{}", "{\"b\":1}" },
      { "{\"a\":1}", "{\"c\":1}", "{\"a\":}" } },
    { "{\"anyOf\":[{\"$ref\":\"#/$defs/x\"},{\"const\":1}],\"$defs\":{\"x\":{\"type\":\"integer\","
      "\"minimum\":3,\"maximum\":2}}}",
      { "1" },
      { "", "2", "3" } },
    { "{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/x\"},\"$defs\":{\"x\":false}}",
      { "[]" },
      { "[1]" } },
    { "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
      { "[1]", "[1,2]", "[1, 2,\n3]" },
      { "[]", "[1,2,3,4]", "[\"x\"]", "[1,]" } },
    { "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"maxItems\":0}", { "[]" }, { "[1]" } },
    { "{\"type\":\"array\",\"items\":false}", { "[]" }, { "[1]" } },
    { "{\"type\":\"array\",\"minItems\":2}", { "[1,\"x\"]", "[{},[],null]" }, { "[]", "[1]" } },
    { "{\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"integer\"}]}",
      { "[\"x\",1]" },
      { "[1,1]", "[\"x\",1,2]", "[\"x\",\"y\"]" } },
    { "{\"prefixItems\":[{\"const\":1}],\"items\":{\"const\":2},\"minItems\":2,\"maxItems\":3}",
      { "[1,2]", "[1,2,2]" },
      { "[1]", "[2]", "[1,2,2,2]", "[]" } },
    { "{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"array\",\"items\":{\"type\":\"null\"}}]}",
      { "1", "[null]" },
      { "\"x\"" } },
    { "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"a\"},\"x\":{\"type\":"
      "\"integer\"}},\"required\":[\"t\",\"x\"]},"
      "{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"b\"}},\"required\":[\"t\"]}]}",
      { "{\"t\":\"a\",\"x\":1}", "{\"t\":\"b\"}" },
      { "{\"t\":\"a\"}", "{\"t\":\"b\",\"x\":1}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1}},\"anyOf\":[{\"required\":[\"a\"]},"
      "{\"properties\":{\"b\":{\"const\":2}},"
      "\"required\":[\"b\"]}]}",
      { "{\"a\":1}", "{\"a\":1,\"b\":2}", "{\"b\":2}" },
      { "{}", "{\"a\":2}" } },
    { "{\"allOf\":[{\"$ref\":\"#/$defs/"
      "x\"},{\"properties\":{\"b\":{\"type\":\"null\"}},\"required\":[\"b\"]}],"
      "\"$defs\":{\"x\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"}},"
      "\"required\":[\"a\"]}}}",
      { "{\"a\":null,\"b\":null}" },
      { "{\"a\":null}", "{\"b\":null}", "null" } },
    { "{\"$ref\":\"#/$defs/"
      "node\",\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"}"
      ","
      "\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/"
      "node\"},{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"]}}}",
      { "{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}" },
      { "{\"v\":1}", "{\"v\":1,\"next\":1}" } },
    { "{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}", { "[]", "[[],[[]]]" }, { "1", "[1]" } },
    { "{\"$ref\":\"#/$defs/a~1b%25\",\"$defs\":{\"a/b%\":{\"const\":3}}}", { "3" }, { "4" } },
    { "{\"title\":\"T\",\"description\":\"d\",\"default\":null,\"type\":\"null\",\"$schema\":"
      "\"x\"}",
      { "null" },
      { "1" } },
};

static void test_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct why why = { "" };
        struct grammar *g = NULL;

        if (schema_compile(cases[i].schema, strlen(cases[i].schema), &g, &why) < 0)
            fail_msg("%s: %s", cases[i].schema, why.text);
        for (size_t k = 0; k < 7 && cases[i].yes[k]; k++)
            if (!has(g, cases[i].yes[k]))
                fail_msg("%s: not %s", cases[i].schema, cases[i].yes[k]);
        for (size_t k = 0; k < 10 && cases[i].no[k]; k++)
            if (has(g, cases[i].no[k]))
                fail_msg("%s: but %s", cases[i].schema, cases[i].no[k]);
        grammar_free(g);
    }
    assert_true(sizeof(cases) / sizeof(*cases) > 40);
}

static const struct {
    const char *schema, *says;
} refused[] = {
    { "", "not JSON" },
    { "{\"type\":", "not JSON" },
    { "{} {}", "not JSON" },
    { "{\"const\":NaN}", "not JSON: byte 9: NaN" }, /* what json-c takes for JSON */
    { "{\"enum\":[1,-Infinity]}", "not JSON: byte 12: NaN and Infinity" },
    { "{\"const\":1.}", "not JSON: byte 11: a digit" },
    { "{\"const\":[1.e5]}", "not JSON: byte 12: a digit" },
    { "{\"const\":-.5}", "not JSON: byte 10: a digit" },
    { "{\"const\":-01.5}", "not JSON: byte 11: no digit" },
    { "{'const':1}", "not JSON: byte 1: names and" },
    { "[]", "the schema: a schema is an object" },
    { "{\"not\":{}}", "the schema's /not: this keyword is not supported" },
    { "{\"properties\":{\"a/b\":{\"items\":{\"multipleOf\":2}}}}",
      "the schema's /properties/a~1b/items/multipleOf: this keyword is not supported" },
    { "{\"anyOf\":[{\"type\":\"null\"},{\"if\":{}}]}", "the schema's /anyOf/1/if: this keyword" },
    { "{\"$defs\":{\"x\":{\"minProperties\":1}},\"$ref\":\"#/$defs/x\"}",
      "/$ref/minProperties: this keyword" },
    { "{\"type\":\"text\"}", "the schema's /type: \"text\" is no type" },
    { "{\"type\":[]}", "an empty list of types" },
    { "{\"type\":null}", "the schema's /type: it is null" },
    { "{\"enum\":3}", "the schema's /enum: it is no list" },
    { "{\"enum\":[]}", "no value is valid" },
    { "false", "no value is valid" },
    { "{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},\"minItems\":1}", "no text of it ever ends" },
    { "{\"$ref\":\"#/$defs/x\"}", "there is nothing at #/$defs/x" },
    { "{\"$ref\":\"other.json\"}", "only references to places in the same schema" },
    { "{\"$ref\":\"#\"}", "no text of it ever ends" },
    { "{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"anyOf\":[{\"$ref\":\"#/$defs/"
      "a\"},{\"type\":\"null\"}]}}}",
      "begins with itself" },
    { "{\"allOf\":[{\"$ref\":\"#\"}]}", "nests too deep" },
    { "{\"$ref\":\"#/$defs/a\",\"minLength\":2,\"$defs\":{\"a\":{}}}",
      "minLength beside $ref is not supported" },
    { "{\"format\":\"hostname\"}",
      "the schema's /format: the format \"hostname\" is not supported" },
    { "{\"pattern\":\"(?=a)\"}", "the schema's /pattern: the pattern has a look ahead" },
    { "{\"pattern\":\"a^\"}", "^ or $ inside" },
    { "{\"pattern\":\"\\\\bx\"}", "a boundary" },
    { "{\"pattern\":\"[a\"}", "a class without ]" },
    { "{\"pattern\":\"(a\"}", "a group without )" },
    { "{\"pattern\":\"a)\"}", ") without a group" },
    { "{\"pattern\":\"*\"}", "repeats nothing" },
    { "{\"pattern\":\"a\",\"maxLength\":3}", "only one of pattern, format" },
    { "{\"maxLength\":-1}", "the schema's /maxLength: it is no whole number" },
    { "{\"maxLength\":20000}", "the most that is supported" },
    { "{\"type\":\"number\",\"minimum\":0.5}", "that is not whole is not supported" },
    { "{\"minimum\":\"1\"}", "the schema's /minimum: it is no number" },
    { "{\"type\":\"integer\",\"minimum\":2000000000000000}", "15 digits" },
    { "{\"type\":\"integer\",\"minimum\":1e300}", "15 digits" },
    { "{\"exclusiveMaximum\":-1e300}", "15 digits" },
    { "{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "no value is valid" },
    { "{\"type\":\"object\",\"properties\":{\"a\":false},\"required\":[\"a\"]}",
      "no value is valid" },
    { "{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}",
      "no value is valid" },
    { "{\"properties\":{\"a\":{\"$ref\":\"#/$defs/"
      "x\"}},\"required\":[\"a\"],\"$defs\":{\"x\":false}}",
      "no value is valid" },
    { "{\"required\":[1]}", "no list of names" },
    { "{\"properties\":[]}", "the schema's /properties: it is no object" },
    { "{\"items\":[{}]}", "the schema's /items: a schema is an object" },
    { "{\"uniqueItems\":true}", "unique items are not supported" },
    { "{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "number 0 and number 1" },
    { "{\"oneOf\":[{\"enum\":[1,2]},{\"enum\":[2.0]}]}", "which oneOf excludes" },
    { "{\"oneOf\":[{\"minLength\":1},{\"type\":\"null\"}]}", "which oneOf excludes" },
    { "{\"anyOf\":[]}", "the schema's /anyOf: it is no list of schemas" },
    { "{\"anyOf\":[{\"const\":1}],\"oneOf\":[{\"const\":1}]}", "anyOf beside oneOf" },
    { "{\"allOf\":[{\"minLength\":1},{\"minLength\":2}]}",
      "the schema's /allOf/1: minLength is said of the same value twice" },
    { "{\"allOf\":[{\"type\":\"null\"},{\"type\":\"string\"}]}", "no value has both types" },
    { "{\"additionalProperties\":false,\"allOf\":[{\"properties\":{\"a\":{}}}]}",
      "look at what another schema says" },
    { "{\"const\":12345678901234567890}", "more than 18 digits" },
    { "{\"properties\":{\"a\\u0000b\":{}}}", "U+0000" },
    { "{\"const\":1,\"minimum\":0}", "minimum beside const is not supported" },
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
        struct why why = { "" };
        struct grammar *g = NULL;
        int e = schema_compile(refused[i].schema, strlen(refused[i].schema), &g, &why);

        if (e >= 0 || !strstr(why.text, refused[i].says))
            fail_msg("%s: %d %s", refused[i].schema, e, why.text);
        assert_true(e == -EINVAL || e == -ENOTSUP || e == -E2BIG);
        assert_null(g);
    }
}

/* Made large by a hostile hand: all end soon, with a sentence. */
static void test_hostile(void **state)
{
    static char text[GRAMMAR_TEXT_MAX + 1];
    static const char *const heads[] = { "{\"oneOf\":[",
                                         "{\"type\":\"object\",\"required\":[",
                                         "[",
                                         "{\"enum\":[",
                                         "{\"allOf\":[",
                                         "{\"items\":" },
                             *const parts[] = { "{\"enum\":[%zu,1]},",
                                                "\"a%zu\",",
                                                "[",
                                                "%zu,",
                                                "{\"properties\":{\"p%zu\":{\"maxLength\":99}}},",
                                                "{\"items\":" },
                             *const tails[] = {
                                 "{\"type\":\"null\"}]}", "\"x\"]}", "", "0]}", "{}]}", ""
                             };

    (void)state;
    for (size_t i = 0; i < sizeof(heads) / sizeof(*heads); i++) {
        struct why why = { "" };
        struct grammar *g = NULL;
        size_t n = (size_t)sprintf(text, "%s", heads[i]);
        int e;

        for (size_t k = 0; n < sizeof(text) - 200; k++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, parts[i], k);
        n += (size_t)sprintf(text + n, "%s", tails[i]);
        e = schema_compile(text, n, &g, &why);
        if (i == 3) { /* a long list of values is just that */
            assert_int_equal(e, 0);
            grammar_free(g);
            continue;
        }
        assert_true(e < 0);
        assert_true(why.text[0]);
    }
}

/* A few lines that join the same long lists again and again: what comes of it is a copy each time.
 */
static void test_hostile_joins(void **state)
{
    static char text[GRAMMAR_TEXT_MAX + 1];
    static const char *const lists[] = { "\"required\":[", "\"enum\":[", "\"properties\":{" },
                             *const parts[] = { "\"%c\",", "\"%c%u\",", "\"%c%u\":{}," },
                             *const tails[] = { "\"%c\"]", "\"z\"]", "\"z\":{}}" };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct why why = { "" };
        struct grammar *g = NULL;
        size_t n = (size_t)sprintf(text, "{\"$defs\":{");

        for (char c = 'a'; c <= 'b'; c++) { /* enum: twice the same one */
            n += (size_t)sprintf(text + n, "%s\"%c\":{%s", c == 'a' ? "" : ",", c, lists[i]);
            for (unsigned k = 0; k < 8000; k++)
                n += (size_t)sprintf(text + n, parts[i], i == 1 ? 'x' : c, k);
            n += (size_t)sprintf(text + n, tails[i], c);
            n += (size_t)sprintf(text + n, "}");
        }
        n += (size_t)sprintf(text + n, "},\"allOf\":[");
        for (unsigned k = 0; k < 900; k++)
            n += (size_t)sprintf(text + n, "{\"$ref\":\"#/$defs/%c\"},", 'a' + (int)(k & 1));
        n += (size_t)sprintf(text + n, "{}]}");
        assert_true(n < sizeof(text));
        assert_int_equal(schema_compile(text, n, &g, &why), -E2BIG);
        assert_non_null(strstr(why.text, "takes too long to compile"));
    }
}

/* Long strings are counted, without a state for each character; several share what counts. */
static const struct {
    unsigned min, max; /* 0: none */
} lengths[] = { { 0, 257 },   { 0, 383 },   { 0, 384 },     { 1, 400 },   { 128, 512 },
                { 300, 300 }, { 127, 640 }, { 511, 513 },   { 700, 0 },   { 768, 0 },
                { 0, 10000 }, { 9000, 0 },  { 2000, 2001 }, { 384, 768 }, { 9999, 10000 } };

/* A text of n characters, of one byte and more. */
static bool has_length(const struct grammar *g, unsigned n)
{
    static const char *const chars[] = { "a", "\xc3\xa9", "\\n", "\xe4\xb8\xad", "\\u00e9" };
    static char text[80000];
    char *to = text;

    *to++ = '"';
    for (unsigned i = 0; i < n; i++)
        to = stpcpy(to, chars[i * 7 % 5]);
    (void)stpcpy(to, "\"");
    return has(g, text);
}

static void test_lengths(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        unsigned min = lengths[i].min, max = lengths[i].max;
        struct why why = { "" };
        char schema[100], most[30] = "";
        struct grammar *g;

        if (max)
            (void)snprintf(most, sizeof(most), ",\"maxLength\":%u", max);
        (void)snprintf(schema, sizeof(schema), "{\"type\":\"string\",\"minLength\":%u%s}", min,
                       most);
        if (schema_compile(schema, strlen(schema), &g, &why) < 0)
            fail_msg("%s: %s", schema, why.text);
        assert_true(g->n_states < 6000);
        for (unsigned n = 0; n < 12000; n += n % 64 < 2 || n % 64 > 62 ? 1 : 31 + n % 31)
            if (has_length(g, n) != (n >= min && (max == 0 || n <= max)))
                fail_msg("%s: %u", schema, n);
        for (unsigned n = min > 2 ? min - 2 : 0; n < min + 3; n++)
            assert_int_equal(has_length(g, n), n >= min && (max == 0 || n <= max));
        for (unsigned n = max ? max - 1 : 0; max && n < max + 3; n++)
            assert_int_equal(has_length(g, n), n >= min && n <= max);
        grammar_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),         cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_hostile_joins),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
