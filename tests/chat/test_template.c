/* What chat templates may not do, and how far they may go: refused by name, with the line. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/json.h"
#include "workers/chat/chat.h"
#include "workers/chat/jinja.h"

/* Renders a template with a variable `v` of this JSON; the text or the error. */
static int render(const char *source, const char *json, struct buf *out, char *err,
                  size_t err_bytes) {
    struct json *j = NULL;
    struct jinja *t = NULL;
    struct arena a;
    struct value vars, v;
    arena_init(&a, 32u << 20);
    cr_assert_eq(json_parse(&j, json, strlen(json), err, err_bytes), 0, "%s", err);
    cr_assert_eq(value_dict(&a, JV_DICT, 1, &vars), 0);
    cr_assert_eq(value_of_json(&a, j, &v), 0);
    cr_assert_eq(value_put(&a, vars, value_text(bytes_str("v")), v), 0);
    int rc = jinja_open(&t, bytes_str(source), err, err_bytes);
    if (rc == 0) rc = jinja_render(t, &a, vars, 86400 * 365, out, err, err_bytes);
    jinja_close(t);
    json_free(j);
    arena_fini(&a);
    return rc;
}

static void is_refused(const char *source, const char *json, int code, const char *says) {
    struct buf out = {.max_bytes = 1u << 20};
    char err[512] = "";
    int rc = render(source, json, &out, err, sizeof err);
    cr_assert_eq(rc, code, "%s: %d: %s", source, rc, err);
    cr_assert(strstr(err, says), "%s: \"%s\" does not say \"%s\"", source, err, says);
    buf_fini(&out);
}

static void gives(const char *source, const char *json, const char *text) {
    struct buf out = {.max_bytes = 1u << 20};
    char err[512] = "";
    cr_assert_eq(render(source, json, &out, err, sizeof err), 0, "%s: %s", source, err);
    cr_assert(bytes_is(buf_bytes(&out), text), "%s gives %.*s", source, (int)out.len,
              (char *)out.data);
    buf_fini(&out);
}

Test(template, what_is_not_supported_is_refused_by_name_and_line) {
    static const char *const cases[][2] = {
        {"a\n{% include 'x' %}", "line 2: the tag {% include %} is not supported"},
        {"{% import 'x' as y %}", "{% import %}"},
        {"{% extends 'x' %}", "{% extends %}"},
        {"{% block b %}{% endblock %}", "{% block %}"},
        {"{% do v %}", "{% do %}"},
        {"{% autoescape true %}{% endautoescape %}", "{% autoescape %}"},
        {"\n\n{{ v | pprint }}", "line 3: the filter \"pprint\" is not supported"},
        {"{{ v | groupby('x') }}", "\"groupby\""},
        {"{% if v is weird %}{% endif %}", "the test \"is weird\" is not supported"},
        {"{% for x in v recursive %}{% endfor %}", "a recursive loop is not supported"},
        {"{{ f(*v) }}", "* and ** in arguments"},
        {"{{ '%s' % 1 }}", "formatting a string by %"},
        {"{{ '{}'.format(1) }}", "the method format of a str"},
        {"{{ 'x'.zfill(3) }}", "the method zfill of a str"},
        {"{{ [1].append(2) }}", "the method append of a list"},
        {"{{ {}.update({}) }}", "the method update of a dict"},
        {"{{ v.__class__ }}", "names that begin with __"},
        {"{{ joiner(',') }}", "the function joiner is not supported"},
        {"{{ range }}", "printing a function"},
        {"{{ 'x'.upper }}", "printing a method"},
        {"{{ 9223372036854775807 + 1 }}", "beyond 64 bits"},
        {"{{ 99999999999999999999 }}", "beyond 64 bits"},
        {"{{ 'straße'.upper() }}", "the other case of a letter"},
        {"{{ '\\N{DASH}' }}", "\\N{...}"},
        {"{{ ('<' | safe) + '<' }}", "safe or escape"},
        {"{{ ('ab' | safe)[0] }}", "an item of a safe string"},
        {"{{ v[1, 2] }}", "a tuple as a subscript"},
        {"{{ 'x'.strip('x', 'y') }}", "strip: the argument in that place"},
        {"{{ 1 | tojson(flat=true) }}", "tojson: the argument flat"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        is_refused(cases[i][0], "null", i == 20 ? ERR_LIMIT : ERR_FIELD, cases[i][1]);
}

Test(template, what_a_template_raises_reaches_the_caller) {
    is_refused("\n{{ raise_exception('Roles take turns, ' ~ v) }}", "\"please\"", ERR_FIELD,
               "line 2: the template refuses these messages: Roles take turns, please");
}

Test(template, the_date_is_the_one_that_was_passed_in) {
    gives("{{ strftime_now('%d %b %Y') }}|{{ strftime_now('') }}", "null", "01 Jan 1971|");
}

Test(template, work_memory_depth_and_text_are_limited) {
    is_refused("{% set s = 'ab' * 50000 %}{% for a in range(9999) %}{% if 'zz' in s %}{% endif %}"
               "{% endfor %}",
               "null", ERR_LIMIT, "more than 4000000 steps");
    is_refused("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
               "null", ERR_LIMIT, "bytes of memory");
    is_refused("{% for a in range(99999) %}{% if v in 'no' %}{% endif %}{{ 'x' * 4096 }}"
               "{% endfor %}",
               "\"no\"", ERR_LIMIT, "writes more than 1048576 bytes");
    is_refused("{{ 'abcd' * 1000000 }}", "null", ERR_LIMIT, "more than 1048576 bytes");
    is_refused("{{ [1] * 100000000 }}", "null", ERR_LIMIT, "");
    is_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "null", ERR_LIMIT,
               "evaluations in each other");
    is_refused("{% set ns = namespace(x=[]) %}{% for i in range(100) %}{% set ns.x = [ns.x] %}"
               "{% endfor %}{{ ns.x }}",
               "null", ERR_LIMIT, "levels to print");
#define SHARED                                                                                     \
    "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}"  \
    "{% set ns.b = [ns.b, ns.b] %}{% endfor %}"
#define LONG                                                                                       \
    "{% set a = 'x' * 900000 %}{% set b = 'x' * 900000 %}{% set d = {a: 1} %}"                     \
    "{% for i in range(99999) %}"
    static const char *const endless[] = {
        SHARED "{{ ns.a == ns.b }}",
        SHARED "{{ ns.a < ns.b }}",
        SHARED "{{ [ns.a, ns.b] | sort | length }}",
        SHARED "{{ ns.a in [ns.b] }}",
        SHARED "{{ [ns.a].count(ns.b) }}",
        LONG "{% if a == b %}{% endif %}{% endfor %}",
        LONG "{% if a < b %}{% endif %}{% endfor %}",
        LONG "{% if a.startswith(b) %}{% endif %}{% endfor %}",
        LONG "{% if a.endswith(('y', b)) %}{% endif %}{% endfor %}",
        LONG "{% if b in d %}{% endif %}{% endfor %}",
        LONG "{% if d[b] %}{% endif %}{% endfor %}",
        "{% set r = range(99000) %}{% for i in r %}{% if r | sum %}{% endif %}{% endfor %}",
    };
    for (size_t i = 0; i < sizeof endless / sizeof *endless; i++)
        is_refused(endless[i], "null", ERR_LIMIT, "more than 4000000 steps");
    is_refused("{{ 2 ** 64 }}", "null", ERR_LIMIT, "beyond 64 bits");
    is_refused("{{ range(10000000) | length }}", "null", ERR_LIMIT, "100000 items");
}

static void nested(char *out, uint32_t n, const char *open, const char *inside, const char *close) {
    char *p = stpcpy(out, "{{ ");
    for (uint32_t i = 0; i < n; i++) p = stpcpy(p, open);
    p = stpcpy(p, inside);
    for (uint32_t i = 0; i < n; i++) p = stpcpy(p, close);
    strcpy(p, " }}");
}

Test(template, nesting_and_size_of_the_text_itself_are_limited) {
    static char text[JINJA_SOURCE_BYTES + 2];
    nested(text, 20, "(", "1", ")");
    gives(text, "null", "1");
    nested(text, 90, "(", "1", ")");
    is_refused(text, "null", ERR_FIELD, "in each other");
    nested(text, 90, "[", "", "]");
    is_refused(text, "null", ERR_FIELD, "in each other");
    nested(text, 90, "not ", "1", "");
    is_refused(text, "null", ERR_FIELD, "in each other");
    nested(text, 90, "- ", "1", "");
    is_refused(text, "null", ERR_FIELD, "in each other");
    nested(text, 5000, "1 + ", "1", "");
    is_refused(text, "null", ERR_LIMIT, "evaluations in each other");
    nested(text, 5000, "", "v", ".x");
    is_refused(text, "null", ERR_LIMIT, "evaluations in each other");
    nested(text, 20000, "{", "", "");
    is_refused(text, "null", ERR_FIELD, "brackets");
    memset(text, 'a', sizeof text - 1);
    is_refused(text, "null", ERR_LIMIT, "at most 262144");
}

Test(template, a_long_chain_of_elif_is_no_nesting) {
    char *text = malloc(200000), *p = stpcpy(text, "{% if v == 0 %}0");
    for (int i = 1; i < 3000; i++) p += sprintf(p, "{%% elif v == %d %%}%d", i, i);
    strcpy(p, "{% else %}none{% endif %}");
    gives(text, "2999", "2999");
    gives(text, "\"x\"", "none");
    free(text);
}

Test(template, bytes_that_are_no_text_are_refused) {
    struct jinja *t;
    char err[256];
    cr_assert_eq(jinja_open(&t, bytes_str("a\xff"), err, sizeof err), ERR_FIELD);
    cr_assert(strstr(err, "not UTF-8 at byte 1"));
}

Test(template, a_number_that_python_would_print_otherwise_is_refused) {
    struct json *j = NULL;
    char err[256] = "";
    cr_assert_eq(chat_json(&j, bytes_str("{\"n\": 12345678901234567890}"), err, sizeof err),
                 ERR_FIELD);
    cr_assert(strstr(err, "18 digits"), "%s", err);
    cr_assert_null(j);
    cr_assert_eq(
        chat_json(&j, bytes_str("{\"n\": \"12345678901234567890\\\"1\"}"), err, sizeof err), 0,
        "%s", err);
    json_free(j);
}

/* ---- a model's files ---- */

static void write_file(const char *dir, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0, "cannot write %s", path);
}

/* The text of one message "hi" with these files, or what is wrong. */
static int chat_with(const char *jinja, const char *config, const char *map, const char *input,
                     char *out, size_t out_bytes) {
    char dir[] = "/tmp/penstock-chat-XXXXXX", command[128];
    struct chat *c = NULL;
    struct json *j;
    struct arena a;
    struct bytes text;
    cr_assert(mkdtemp(dir));
    if (jinja) write_file(dir, "chat_template.jinja", jinja);
    if (config) write_file(dir, "tokenizer_config.json", config);
    if (map) write_file(dir, "special_tokens_map.json", map);
    cr_assert_eq(chat_json(&j, bytes_str(input), out, out_bytes), 0, "%s", out);
    arena_init(&a, 1u << 24);
    struct chat_input in = {.messages = json_get(j, "messages"),
                            .tools = json_get(j, "tools"),
                            .vars = json_get(j, "vars")};
    int rc = chat_open(&c, dir, out, out_bytes);
    if (rc == 0) rc = chat_render(c, &in, &a, &text, out, out_bytes);
    if (rc == 0) snprintf(out, out_bytes, "%.*s", (int)text.len, (const char *)text.data);
    chat_close(c);
    json_free(j);
    arena_fini(&a);
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    cr_assert_eq(system(command), 0);
    return rc;
}

#define HI "\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]"

Test(chat, the_template_and_the_special_tokens_come_from_the_models_files) {
    char out[512];
    const char *config = "{\"chat_template\": \"{{ bos_token }}{{ eos_token }}{{ pad_token }}\", "
                         "\"bos_token\": {\"content\": \"<b>\"}, \"eos_token\": \"<e>\"}";
    cr_assert_eq(chat_with(NULL, config, NULL, "{" HI "}", out, sizeof out), 0, "%s", out);
    cr_assert_str_eq(out, "<b><e>");
    cr_assert_eq(chat_with(NULL, config, "{\"bos_token\": \"<m>\", \"pad_token\": \"<p>\"}",
                           "{" HI "}", out, sizeof out),
                 0, "%s", out);
    cr_assert_str_eq(out, "<m><e><p>");
    cr_assert_eq(chat_with("{{ messages[0].content }}{{ bos_token }}", config, NULL,
                           "{" HI ", \"vars\": {\"bos_token\": \"mine\"}}", out, sizeof out),
                 0, "%s", out);
    cr_assert_str_eq(out, "himine");
}

Test(chat, a_model_with_named_templates_uses_the_one_for_tools_where_there_are_tools) {
    char out[512];
    const char *config = "{\"chat_template\": [{\"name\": \"default\", \"template\": \"plain\"}, "
                         "{\"name\": \"tool_use\", \"template\": \"tools {{ tools | length }}\"}, "
                         "{\"name\": \"rag\", \"template\": \"{% nonsense %}\"}]}";
    cr_assert_eq(chat_with(NULL, config, NULL, "{" HI "}", out, sizeof out), 0, "%s", out);
    cr_assert_str_eq(out, "plain");
    cr_assert_eq(chat_with(NULL, config, NULL, "{" HI ", \"tools\": [{}, {}]}", out, sizeof out), 0,
                 "%s", out);
    cr_assert_str_eq(out, "tools 2");
}

Test(chat, a_file_for_tools_stands_beside_the_files_template) {
    char dir[] = "/tmp/penstock-chat-XXXXXX", more[64], err[256] = "";
    struct json *j;
    struct chat *c;
    struct arena a;
    struct bytes text;
    cr_assert(mkdtemp(dir));
    write_file(dir, "chat_template.jinja", "plain");
    write_file(dir, "tokenizer_config.json", "{\"chat_template\": \"{% nonsense %}\"}");
    snprintf(more, sizeof more, "%s/additional_chat_templates", dir);
    cr_assert_eq(mkdir(more, 0700), 0);
    write_file(more, "tool_use.jinja", "with tools");
    cr_assert_eq(chat_open(&c, dir, err, sizeof err), 0, "%s", err);
    cr_assert_eq(chat_json(&j, bytes_str("{" HI ", \"tools\": [{}]}"), err, sizeof err), 0);
    arena_init(&a, 1u << 20);
    struct chat_input in = {.messages = json_get(j, "messages")};
    cr_assert_eq(chat_render(c, &in, &a, &text, err, sizeof err), 0, "%s", err);
    cr_assert(bytes_is(text, "plain"));
    in.tools = json_get(j, "tools");
    cr_assert_eq(chat_render(c, &in, &a, &text, err, sizeof err), 0, "%s", err);
    cr_assert(bytes_is(text, "with tools"));
    chat_close(c);
    json_free(j);
    arena_fini(&a);
    snprintf(more, sizeof more, "rm -r '%s'", dir);
    cr_assert_eq(system(more), 0);
}

Test(chat, what_is_wrong_with_model_or_messages_is_told_with_its_place) {
    static const char *const cases[][3] = {
        {NULL, "{" HI "}", "this model has no chat template: send a prompt instead"},
        {"{% nope %}", "{" HI "}", "chat_template.jinja: line 1: the tag {% nope %}"},
        {"x", "{}", "messages: must be a list of at least one"},
        {"x", "{\"messages\": []}", "messages: must be a list of at least one"},
        {"x", "{\"messages\": [{\"role\": \"user\"}, 3]}", "messages[1]: must be an object"},
        {"x", "{\"messages\": [{\"content\": \"\"}]}", "messages[0].role: must be a string"},
        {"x", "{" HI ", \"tools\": {}}", "tools: must be a list of objects"},
        {"x", "{" HI ", \"tools\": [1]}", "tools: must be a list of objects"},
        {"x", "{" HI ", \"vars\": []}", "template_vars: must be an object"},
        {"{{ raise_exception('no ' ~ messages[0].role) }}", "{" HI "}", "no user"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[512] = "";
        int rc = chat_with(cases[i][0], NULL, NULL, cases[i][1], out, sizeof out);
        cr_assert_eq(rc, ERR_FIELD, "%s: %d %s", cases[i][1], rc, out);
        cr_assert(strstr(out, cases[i][2]), "\"%s\" does not say \"%s\"", out, cases[i][2]);
    }
}
