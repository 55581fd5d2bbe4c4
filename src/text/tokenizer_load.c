/* What tokenizer.json has beside its model: added tokens, how words are cut, what is put around a
 * text; and what of it is refused. */
#include "text/tokenizer_data.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

/* By which ByteLevel with "use_regex" cuts: GPT-2's pattern. */
#define GPT2_PATTERN                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

Status tokenizer_unsupported(const char *what, const char *value) {
    char *name = mem_printable(value);
    Status st =
        status_fail(ERR_USER, "%s %s is not supported: plain byte-level BPE is", what, name);
    free(name);
    return st;
}

/* The member "type" of an object; free(). "" where it is none. */
static char *read_type(Json object) {
    Json type;
    json_members(&object, 1, (const char *const[]){"type"}, &type);
    char *name = type.text != NULL ? json_string(&type) : NULL;
    return name != NULL ? name : mem_strdup("");
}

static bool read_flag(Json *value, bool otherwise) {
    return value->text != NULL ? json_bool(value) : otherwise;
}

/* ---- added tokens ---------------------------------------------------------------------------- */
enum { ID, CONTENT, NORMALIZED, SPECIAL, SINGLE_WORD, LSTRIP, RSTRIP, ADDED_MEMBERS };
static const char *const added_names[ADDED_MEMBERS] = {
    "id", "content", "normalized", "special", "single_word", "lstrip", "rstrip"};

static Status read_added_token(Tokenizer *t, Json *j) {
    Json v[ADDED_MEMBERS];
    json_members(j, ADDED_MEMBERS, added_names, v);
    CHECK(json_status(j));
    if (v[ID].text == NULL || v[CONTENT].text == NULL)
        return status_fail(ERR_USER, "an added token has no id or no content");
    int64_t id = json_int(&v[ID]);
    CHECK(json_status(&v[ID]));
    for (int i = SINGLE_WORD; i <= RSTRIP; i++)
        if (read_flag(&v[i], false))
            return tokenizer_unsupported("an added token with", added_names[i]);
    bool normalized = read_flag(&v[NORMALIZED], true);
    char *content = json_string(&v[CONTENT]);
    CHECK(json_status(&v[CONTENT]));
    int64_t n = (int64_t)strlen(content);
    CHECK(tokenizer_add(t, id, content, n));
    t->tokens[id].special = read_flag(&v[SPECIAL], false);
    if (n == 0) return OK;
    t->added = mem_grow(t->added, t->n_added + 1, sizeof *t->added);
    t->added[t->n_added++] = (AddedToken){(int32_t)id, normalized ? 1 : 0};
    return OK;
}

static Status read_added(Tokenizer *t, Json *j) {
    Status st = OK;
    for (json_array(j); st == OK && json_array_next(j);) st = read_added_token(t, j);
    return st == OK ? json_status(j) : st;
}

/* ---- how words are cut ----------------------------------------------------------------------- */
static Status add_stage(Tokenizer *t, const char *pattern, bool prefix_space) {
    if (t->n_stages == TOKENIZER_STAGES_MAX)
        return status_fail(ERR_USER, "more than %d pre-tokenizers", TOKENIZER_STAGES_MAX);
    Stage *stage = &t->stages[t->n_stages++];
    stage->prefix_space = prefix_space;
    return pattern != NULL ? split_compile(&stage->split, pattern) : OK;
}

static Status read_byte_level(Tokenizer *t, Json *j) {
    Json v[2];
    json_members(j, 2, (const char *const[]){"add_prefix_space", "use_regex"}, v);
    t->byte_level = true;
    bool prefix_space = read_flag(&v[0], true), use_regex = read_flag(&v[1], true);
    return add_stage(t, use_regex ? GPT2_PATTERN : NULL, prefix_space);
}

static Status read_split(Tokenizer *t, Json *j) {
    Json v[3], regex;
    json_members(j, 3, (const char *const[]){"pattern", "behavior", "invert"}, v);
    char *behavior = v[1].text != NULL ? json_string(&v[1]) : NULL;
    bool isolated = behavior != NULL && strcmp(behavior, "Isolated") == 0;
    free(behavior);
    if (!isolated || read_flag(&v[2], false))
        return tokenizer_unsupported("the pre-tokenizer Split", "unless it is Isolated");
    json_members(&v[0], 1, (const char *const[]){"Regex"}, &regex);
    if (regex.text == NULL)
        return tokenizer_unsupported("the pre-tokenizer Split", "without a Regex");
    char *pattern = json_string(&regex);
    Status st = pattern != NULL ? add_stage(t, pattern, false) : json_status(&regex);
    free(pattern);
    return st;
}

static Status read_digits(Tokenizer *t, Json *j) {
    Json each;
    json_members(j, 1, (const char *const[]){"individual_digits"}, &each);
    return add_stage(t, read_flag(&each, false) ? "\\p{N}" : "\\p{N}+", false);
}

/* The last one must be ByteLevel: only then does the vocabulary have the byte-level alphabet. */
static Status read_pre_tokenizer(Tokenizer *t, Json *j, bool last) {
    char *type = read_type(*j);
    Status st;
    Json list;
    if (strcmp(type, "Sequence") == 0) {
        json_members(j, 1, (const char *const[]){"pretokenizers"}, &list);
        st = json_status(&list);
        bool more = list.text != NULL && json_array(&list) && json_array_next(&list);
        while (more && st == OK) {
            Json one = list;
            json_skip(&list);
            more = json_array_next(&list);
            st = read_pre_tokenizer(t, &one, last && !more);
        }
    } else if (strcmp(type, "ByteLevel") == 0 && last) {
        st = read_byte_level(t, j);
    } else if (strcmp(type, "Split") == 0 && !last) {
        st = read_split(t, j);
    } else if (strcmp(type, "Digits") == 0 && !last) {
        st = read_digits(t, j);
    } else {
        st =
            tokenizer_unsupported(last ? "as the last pre-tokenizer" : "before the last one", type);
    }
    free(type);
    return st;
}

/* ---- what is put around a text --------------------------------------------------------------- */
static Status find_added(const Tokenizer *t, const char *content, int32_t *id) {
    for (int i = 0; i < t->n_added; i++) {
        *id = t->added[i].id;
        const Token *token = &t->tokens[*id];
        if ((size_t)token->n == strlen(content) &&
            memcmp(token->bytes, content, (size_t)token->n) == 0)
            return OK;
    }
    return tokenizer_unsupported("a post-processor with the unknown token", content);
}

/* {"SpecialToken": {"id": "<s>"}} or {"Sequence": {"id": "A"}}, which stands for the text */
static Status read_template_piece(Tokenizer *t, Json *j, bool *text_seen) {
    Json v[2], name;
    json_members(j, 2, (const char *const[]){"SpecialToken", "Sequence"}, v);
    CHECK(json_status(j));
    if (v[1].text != NULL) *text_seen = true;
    if (v[0].text == NULL) return OK;
    json_members(&v[0], 1, (const char *const[]){"id"}, &name);
    char *content = name.text != NULL ? json_string(&name) : NULL;
    int *n = *text_seen ? &t->n_after : &t->n_before;
    int32_t *list = *text_seen ? t->after : t->before;
    Status st = content == NULL ? status_fail(ERR_USER, "a special token without an id") : OK;
    if (st == OK && *n == TOKENIZER_MARKS_MAX)
        st = status_fail(ERR_USER, "more than %d tokens around a text", TOKENIZER_MARKS_MAX);
    if (st == OK) st = find_added(t, content, &list[(*n)++]);
    free(content);
    return st;
}

static Status read_post_processor(Tokenizer *t, Json *j) {
    char *type = read_type(*j);
    Status st = OK;
    bool text_seen = false;
    Json list;
    if (strcmp(type, "Sequence") == 0) {
        json_members(j, 1, (const char *const[]){"processors"}, &list);
        if (list.text != NULL) json_array(&list);
        while (list.text != NULL && st == OK && json_array_next(&list)) {
            Json one = list;
            json_skip(&list);
            st = read_post_processor(t, &one);
        }
    } else if (strcmp(type, "TemplateProcessing") == 0) {
        json_members(j, 1, (const char *const[]){"single"}, &list);
        if (list.text != NULL) json_array(&list);
        while (list.text != NULL && st == OK && json_array_next(&list))
            st = read_template_piece(t, &list, &text_seen);
        if (st == OK) st = json_status(&list);
    } else if (strcmp(type, "ByteLevel") != 0) { /* which changes offsets alone */
        st = tokenizer_unsupported("the post-processor", type);
    }
    free(type);
    return st;
}

/* ---- the file -------------------------------------------------------------------------------- */
enum { NORMALIZER, PRE_TOKENIZER, POST_PROCESSOR, DECODER, ADDED, MODEL, MEMBERS };
static const char *const member_names[MEMBERS] = {"normalizer", "pre_tokenizer", "post_processor",
                                                  "decoder",    "added_tokens",  "model"};

static Status read_refused(Json object, const char *what, const char *allowed) {
    if (object.text == NULL) return OK;
    char *type = read_type(object);
    Status st =
        allowed != NULL && strcmp(type, allowed) == 0 ? OK : tokenizer_unsupported(what, type);
    free(type);
    return st;
}

static Status read_members(Tokenizer *t, Json *v) {
    if (v[MODEL].text == NULL) return status_fail(ERR_USER, "no tokenizer.json: it has no model");
    CHECK(tokenizer_read_model(t, &v[MODEL]));
    if (v[ADDED].text != NULL) CHECK(read_added(t, &v[ADDED]));
    CHECK(read_refused(v[NORMALIZER], "the normalizer", NULL));
    CHECK(read_refused(v[DECODER], "the decoder", "ByteLevel"));
    if (v[PRE_TOKENIZER].text != NULL) CHECK(read_pre_tokenizer(t, &v[PRE_TOKENIZER], true));
    if (!t->byte_level) return tokenizer_unsupported("a pre-tokenizer without", "ByteLevel");
    return v[POST_PROCESSOR].text != NULL ? read_post_processor(t, &v[POST_PROCESSOR]) : OK;
}

static Status read_file(Tokenizer *t, const char *path) {
    StrBuf text = {0};
    Json j, values[MEMBERS];
    Status st = file_read_all(&text, path, "this tokenizer", TOKENIZER_BYTES_MAX);
    if (st != OK) return st;
    json_start(&j, strbuf_text(&text), (int64_t)text.len);
    json_members(&j, MEMBERS, member_names, values);
    json_end(&j);
    st = json_status(&j);
    if (st == OK) st = read_members(t, values);
    if (st != OK) status_prefix("%s", path);
    strbuf_free(&text);
    return st;
}

Status tokenizer_load(Tokenizer **out, const char *path) {
    struct stat info;
    bool directory = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    char *file = mem_printf("%s%s", path, directory ? "/tokenizer.json" : "");
    Tokenizer *t = NEW(Tokenizer, 1);
    t->tokens = NEW(Token, TOKENIZER_IDS_MAX);
    Status st = read_file(t, file);
    free(file);
    if (st != OK) {
        tokenizer_free(t);
        t = NULL;
    }
    *out = t;
    return st;
}

void tokenizer_free(Tokenizer *t) {
    if (t == NULL) return;
    for (int32_t i = 0; i < t->n_tokens; i++) free(t->tokens[i].bytes);
    for (int i = 0; i < t->n_stages; i++) split_free(t->stages[i].split);
    free(t->tokens);
    free(t->by_bytes);
    free(t->merges);
    free(t->added);
    free(t);
}

int32_t tokenizer_size(const Tokenizer *t) {
    return t->n_tokens;
}
