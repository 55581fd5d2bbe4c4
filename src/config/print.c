/* print.c: the table and its values as YAML, as JSON, as help, and as a hash. */
#include "config/keys.h"

#include <string.h>
#include <zlib.h>

#include "base/file.h"

/* Bytes of "a.b." in "a.b.c". */
static size_t section_length(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot != NULL ? (size_t)(dot - name) + 1 : 0;
}

static int dots(const char *text, size_t len) {
    int n = 0;
    for (size_t i = 0; i < len; i++) n += text[i] == '.';
    return n;
}

/* Bytes of the sections that two names share. */
static size_t shared_length(const char *a, const char *b) {
    size_t end = 0;
    for (size_t i = 0; a[i] != '\0' && a[i] == b[i]; i++)
        if (a[i] == '.') end = i + 1;
    return end;
}

void config_print(const Config *c, StrBuf *out) {
    config_print_section(c, "", out);
}

void config_print_section(const Config *c, const char *section, StrBuf *out) {
    const char *previous = "";
    size_t len = strlen(section);
    for (int i = 0; i < config_n_keys; i++) {
        const char *name = config_keys[i].name;
        if (len > 0 && (strncmp(name, section, len) != 0 || name[len] != '.')) continue;
        size_t at = shared_length(previous, name), end = section_length(name);
        while (at < end) { /* headers of the sections that begin here */
            size_t n = strcspn(name + at, ".");
            strbuf_printf(out, "%*s%.*s:\n", 2 * dots(name, at), "", (int)n, name + at);
            at += n + 1;
        }
        strbuf_printf(out, "%*s%s: ", 2 * dots(name, end), "", name + end);
        config_value_print(&config_keys[i], c, false, out);
        strbuf_printf(out, "\n");
        previous = name;
    }
}

void config_print_json(const Config *c, StrBuf *out) {
    const char *previous = "";
    strbuf_printf(out, "{");
    for (int i = 0; i < config_n_keys; i++) {
        const char *name = config_keys[i].name;
        size_t at = shared_length(previous, name), end = section_length(name);
        size_t open = section_length(previous);
        for (int n = dots(previous, open) - dots(previous, at); n > 0; n--) strbuf_printf(out, "}");
        if (i > 0) strbuf_printf(out, ", ");
        while (at < end) {
            size_t n = strcspn(name + at, ".");
            strbuf_printf(out, "\"%.*s\": {", (int)n, name + at);
            at += n + 1;
        }
        strbuf_printf(out, "\"%s\": ", name + end);
        config_value_print(&config_keys[i], c, true, out);
        previous = name;
    }
    for (int n = dots(previous, strlen(previous)); n > 0; n--) strbuf_printf(out, "}");
    strbuf_printf(out, "}");
}

void config_print_lines(const Config *c, StrBuf *out) {
    for (int i = 0; i < config_n_keys; i++) {
        strbuf_printf(out, "%s=", config_keys[i].name);
        config_value_print(&config_keys[i], c, false, out);
        strbuf_printf(out, "\n");
    }
}

/* Is this key the one of that name, or in the section of that name? */
static bool is_in(const char *key, const char *name) {
    size_t n = strlen(name);
    return n == 0 || (strncmp(key, name, n) == 0 && (key[n] == '.' || key[n] == '\0'));
}

static Status unknown_name(const char *name) {
    StrBuf nearest = {0};
    bool near = config_key_nearest(name, &nearest);
    Status st = status_fail(ERR_USER, "there is no key or section %s%s%s%s", name,
                            near ? ", did you mean " : "; `cria config` lists them all",
                            strbuf_text(&nearest), near ? "?" : "");
    strbuf_free(&nearest);
    return st;
}

static void print_key_help(const ConfigKey *k, StrBuf *out) {
    strbuf_printf(out, "  %s: ", k->name);
    config_key_expects(k, out);
    if (k->unit[0] != '\0') strbuf_printf(out, " (%s)", k->unit);
    if (k->default_value == NULL)
        strbuf_printf(out, "; required\n");
    else
        strbuf_printf(out, "; default %s\n",
                      k->default_value[0] != '\0' ? k->default_value : "empty");
    strbuf_wrap(out, k->help, 6);
}

Status config_print_help(const char *name, StrBuf *out) {
    const char *previous = "";
    if (name[0] == '\0')
        strbuf_printf(out, "Keys of a configuration file, and of key=value on the command line.\n"
                           "The value of key=value is YAML: data.train=a.bin,\n"
                           "data.train='[a.bin, b.bin]'.\n");
    else if (config_key_find(name) == NULL && config_section_find(name) < 0)
        return unknown_name(name);
    for (int i = 0; i < config_n_keys; i++) {
        const ConfigKey *k = &config_keys[i];
        if (!is_in(k->name, name)) continue;
        size_t n = section_length(k->name);
        if (n != section_length(previous) || strncmp(k->name, previous, n) != 0)
            strbuf_printf(out, "\n%.*s\n", n > 0 ? (int)n - 1 : (int)strlen(k->name), k->name);
        print_key_help(k, out);
        previous = k->name;
    }
    return OK;
}

/* As text of a cell in a table. */
static void print_cell(const char *text, StrBuf *out) {
    for (; *text != '\0'; text++) strbuf_printf(out, *text == '|' ? "\\|" : "%c", *text);
}

void config_print_markdown(StrBuf *out) {
    static const char *const resumed[] = {
        [AFFECTS_NOTHING] = "free",  [AFFECTS_INITIAL_WEIGHTS] = "no effect",
        [AFFECTS_MODEL] = "refused", [AFFECTS_BATCHES] = "needs `run.allow_data_change`",
        [AFFECTS_COURSE] = "named",  [AFFECTS_LATER_STEPS] = "named"};
    const char *previous = NULL;
    strbuf_printf(out, "# Keys of a configuration\n\n"
                       "Written by `build/cria config --markdown >configs/KEYS.md` from the table "
                       "in `src/config/keys.c`.\n\nThe last column says what another value means "
                       "for a run that goes on from a checkpoint. free: nothing;\nnamed: a line "
                       "says what it does; needs `run.allow_data_change`: refused without that "
                       "key; refused: always.\n\nAn item of `stages` may set:");
    const char *before = " ";
    for (int i = 0; i < config_n_keys; i++) {
        if (!config_keys[i].in_stages) continue;
        strbuf_printf(out, "%s`%s`", before, config_keys[i].name);
        before = ", ";
    }
    strbuf_printf(out, ".\n");
    for (int i = 0; i < config_n_keys; i++) {
        const ConfigKey *k = &config_keys[i];
        StrBuf expects = {0};
        size_t n = section_length(k->name);
        if (previous == NULL || n != section_length(previous) || strncmp(k->name, previous, n) != 0)
            strbuf_printf(out,
                          "\n## %.*s\n\n| key | value | default | what | on resume |\n"
                          "|---|---|---|---|---|\n",
                          n > 0 ? (int)n - 1 : (int)strlen(k->name), k->name);
        config_key_expects(k, &expects);
        strbuf_printf(out, "| `%s` | ", k->name);
        print_cell(strbuf_text(&expects), out);
        if (k->unit[0] != '\0') strbuf_printf(out, " (%s)", k->unit);
        if (k->default_value == NULL)
            strbuf_printf(out, " | required | ");
        else if (k->default_value[0] == '\0')
            strbuf_printf(out, " | empty | ");
        else
            strbuf_printf(out, " | `%s` | ", k->default_value);
        print_cell(k->help, out);
        strbuf_printf(out, " | %s |\n",
                      k->type == KEY_STAGES ? "refused for those taken, else named"
                                            : resumed[k->affects_result]);
        strbuf_free(&expects);
        previous = k->name;
    }
}

uint32_t config_hash(const Config *c) {
    StrBuf b = {0};
    for (int i = 0; i < config_n_keys; i++) {
        const ConfigKey *k = &config_keys[i];
        if (k->affects_result == AFFECTS_NOTHING || k->affects_result == AFFECTS_LATER_STEPS)
            continue;
        if (k->late && config_value_is_default(k, c)) continue;
        strbuf_printf(&b, "%s", k->name);
        if (k->type == KEY_SOURCES) {
            const DataSource *sources = *(DataSource *const *)config_key_field(k, c);
            for (int j = 0; j < *config_key_count(k, c); j++) {
                strbuf_printf(&b, " %s %.17g", file_name(sources[j].path), sources[j].weight);
            }
        } else {
            strbuf_printf(&b, " ");
            config_value_print(k, c, false, &b);
        }
        strbuf_printf(&b, "\n");
    }
    uint32_t hash = (uint32_t)crc32(0, (const unsigned char *)strbuf_text(&b), (unsigned)b.len);
    strbuf_free(&b);
    return hash;
}
