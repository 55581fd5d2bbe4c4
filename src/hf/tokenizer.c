/* tokenizer.c: tokenizer_config.json for tokenizers that come without one. From config.json
 * alone transformers 4 takes any tokenizer for that of Llama 2: it adds <s>, </s> and <unk> with
 * ids of their own and begins every text with <s>. */
#include "hf/hf.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "hf/files.h"
#include "base/file.h"
#include "base/log.h"

enum {
    TOKENIZER_MAX = 256 << 20, /* bytes; that of Llama 3 has 17 million */
    EOS = 0,
    BOS,
    PAD,
    N_ROLES,
    LLAMA3_RANKS = 128000, /* ids that Llama 3's tokenizer.model holds */
    LLAMA3_SPECIALS = 256  /* ids that follow them */
};

typedef struct {
    int64_t id; /* -1: none */
    char *text; /* NULL: not found */
    bool added; /* found among the added tokens, which count more than the vocabulary */
} Role;

typedef struct {
    const char *path;
    Role roles[N_ROLES];
    int64_t largest; /* id; -1: not known */
    StrBuf added;    /* entries of added_tokens_decoder, or empty */
} Tokenizer;

/* ---- reading --------------------------------------------------------------------------------- */

/* A token of the vocabulary that is no text but a mark, such as </s> or [EOS]. Any other would be
 * cut out of texts if it were called an end. */
static bool is_mark(const char *text) {
    size_t n = strlen(text);
    return n > 2 &&
           ((text[0] == '<' && text[n - 1] == '>') || (text[0] == '[' && text[n - 1] == ']'));
}

/* Takes `text` when a role has this id. */
static void take_token(Tokenizer *t, int64_t id, const char *text, bool added) {
    t->largest = i64_max(t->largest, id);
    for (int i = 0; i < N_ROLES; i++) {
        Role *r = &t->roles[i];
        if (r->id != id || id < 0 || (r->added && !added) || (!added && !is_mark(text))) continue;
        free(r->text);
        r->text = mem_strdup(text);
        r->added = added;
    }
}

/* {"id": 0, "content": "<|endoftext|>", ...} */
static void read_added(Tokenizer *t, Json *j) {
    int64_t id = -1;
    char *key, *text = NULL;
    for (json_object(j); json_object_next(j, &key); free(key)) {
        if (strcmp(key, "id") == 0) {
            id = json_int(j);
        } else if (strcmp(key, "content") == 0) {
            free(text);
            text = json_string(j);
        } else {
            json_skip(j);
        }
    }
    if (text != NULL && j->error == NULL) take_token(t, id, text, true);
    free(text);
}

/* {"text": id, ...}, or of a Unigram model [["text", score], ...] */
static void read_vocab(Tokenizer *t, Json *j) {
    char *text;
    if (json_peek(j) == '{') {
        for (json_object(j); json_object_next(j, &text); free(text)) {
            int64_t id = json_int(j);
            if (j->error == NULL) take_token(t, id, text, false);
        }
        return;
    }
    json_array(j);
    for (int64_t id = 0; json_array_next(j); id++) {
        json_array(j);
        for (int i = 0; json_array_next(j); i++) {
            text = i == 0 ? json_string(j) : NULL;
            if (i > 0) json_skip(j);
            if (text != NULL) take_token(t, id, text, false);
            free(text);
        }
    }
}

static void read_tokenizer(Tokenizer *t, Json *j) {
    char *key, *inner;
    for (json_object(j); json_object_next(j, &key); free(key)) {
        if (strcmp(key, "added_tokens") == 0 && json_peek(j) == '[') {
            for (json_array(j); json_array_next(j);) read_added(t, j);
        } else if (strcmp(key, "model") == 0 && json_peek(j) == '{') {
            for (json_object(j); json_object_next(j, &inner); free(inner)) {
                if (strcmp(inner, "vocab") == 0)
                    read_vocab(t, j);
                else
                    json_skip(j);
            }
        } else {
            json_skip(j);
        }
    }
}

/* Does a tiktoken file start here: base64, a space, 0, a line's end? *lines counts them all. */
static bool is_tiktoken(const char *text, int64_t len, int64_t *lines) {
    int64_t i = 0;
    while (i < len && (isalnum((unsigned char)text[i]) || memchr("+/=", text[i], 3) != NULL)) i++;
    *lines = 0;
    if (i == 0 || len - i < 3 || memcmp(text + i, " 0\n", 3) != 0) return false;
    for (i = 0; i < len; i++) *lines += text[i] == '\n';
    if (text[len - 1] != '\n') ++*lines;
    return true;
}

/* Meta's names (tokenizer.py of llama-models) of the ids behind the ranks, which the file does not
 * hold. */
static char *llama3_special(int i) {
    static const char *const names[] = {"begin_of_text",
                                        "end_of_text",
                                        "reserved_special_token_0",
                                        "reserved_special_token_1",
                                        "finetune_right_pad_id",
                                        "step_id",
                                        "start_header_id",
                                        "end_header_id",
                                        "eom_id",
                                        "eot_id",
                                        "python_tag",
                                        "image"};
    enum { N = sizeof names / sizeof *names };
    return i < N ? mem_printf("<|%s|>", names[i])
                 : mem_printf("<|reserved_special_token_%d|>", i - N + 2);
}

static void add_llama3_specials(Tokenizer *t) {
    if (t->roles[BOS].id < 0) t->roles[BOS].id = LLAMA3_RANKS;
    for (int i = 0; i < LLAMA3_SPECIALS; i++) {
        char *text = llama3_special(i);
        take_token(t, LLAMA3_RANKS + i, text, true);
        strbuf_printf(&t->added,
                      "%s\n    \"%d\": {\"content\": \"%s\", \"lstrip\": false, "
                      "\"normalized\": false, \"rstrip\": false, \"single_word\": false, "
                      "\"special\": true}",
                      i > 0 ? "," : "", LLAMA3_RANKS + i, text);
        free(text);
    }
}

/* ---- writing --------------------------------------------------------------------------------- */

/* `none` says so where the class would take <|endoftext|>. */
static void print_role(const Tokenizer *t, int role, const char *key, bool none, StrBuf *out) {
    const char *text = t->roles[role].text;
    if (text == NULL && !none) return;
    strbuf_printf(out, "  \"%s\": ", key);
    if (text != NULL)
        strbuf_json_string(out, text);
    else
        strbuf_printf(out, "null");
    strbuf_printf(out, ",\n");
}

/* The names that LlamaForCausalLM takes: without them version 4 gives token_type_ids, too, which
 * generate() refuses. Text is given back as it was: no space is dropped before a full stop. */
static void print_config(const Tokenizer *t, const char *class, int64_t length, StrBuf *out) {
    bool gpt2 = strcmp(class, "GPT2Tokenizer") == 0;
    strbuf_printf(out, "{\n");
    if (t->added.len > 0)
        strbuf_printf(out, "  \"added_tokens_decoder\": {%s\n  },\n", strbuf_text(&t->added));
    print_role(t, BOS, "bos_token", gpt2, out);
    strbuf_printf(out, "  \"clean_up_tokenization_spaces\": false,\n");
    print_role(t, EOS, "eos_token", gpt2, out);
    strbuf_printf(out,
                  "  \"model_input_names\": [\n    \"input_ids\",\n    \"attention_mask\"\n  ],\n"
                  "  \"model_max_length\": %lld,\n",
                  (long long)length);
    print_role(t, PAD, "pad_token", false, out);
    strbuf_printf(out, "  \"tokenizer_class\": \"%s\"%s\n}\n", class,
                  gpt2 ? ",\n  \"unk_token\": null" : "");
}

static void warn_of_ids(const Tokenizer *t, int vocab) {
    const Role *eos = &t->roles[EOS];
    if (eos->id > t->largest)
        log_warn("%s has no id %lld, which ends texts of this model (data.eod): is it of another "
                 "model?",
                 t->path, (long long)eos->id);
    else if (eos->id >= 0 && eos->text == NULL)
        log_warn(
            "%s: id %lld, which ends texts of this model (data.eod), is a piece of text, not a "
            "mark such as </s>: tokenizer_config.json names no eos_token",
            t->path, (long long)eos->id);
    if (t->largest >= vocab)
        log_warn(
            "%s has ids up to %lld, but model.vocab is %d: texts that use the others cannot be "
            "run",
            t->path, (long long)t->largest, vocab);
}

/* The class that reads the file as it is; NULL after a warning. */
static const char *read_file(Tokenizer *t, const char *text, int64_t len) {
    const char *name = file_name(t->path);
    int64_t lines;
    Json j;
    json_start(&j, text, len);
    if (strcmp(name, "tokenizer.model") != 0) {
        bool vocab = strcmp(name, "vocab.json") == 0;
        if (vocab)
            read_vocab(t, &j);
        else
            read_tokenizer(t, &j);
        json_end(&j);
        if (j.error == NULL && t->largest >= 0)
            return vocab ? "GPT2Tokenizer" : "PreTrainedTokenizerFast";
        log_warn(
            "%s holds no vocabulary that cria understands (%s at byte %lld): the export has no "
            "tokenizer_config.json",
            t->path, j.error != NULL ? j.error : "none", (long long)j.pos);
    } else if (!is_tiktoken(text, len, &lines)) {
        log_warn("%s is a SentencePiece model, which transformers 4 and 5 read differently: give "
                 "--tokenizer a directory with tokenizer_config.json",
                 t->path);
    } else if (lines != LLAMA3_RANKS) {
        log_warn(
            "%s has %lld ranks, that of Llama 3 has %d, and transformers splits texts as Llama "
            "3 does: convert it to a tokenizer.json",
            t->path, (long long)lines, LLAMA3_RANKS);
    } else {
        add_llama3_specials(t);
        return "PreTrainedTokenizerFast";
    }
    return NULL;
}

Status hf_tokenizer_config(const char *path, const HfExtra *extra, int vocab, StrBuf *out) {
    StrBuf text = {0};
    Tokenizer t = {.path = path, .largest = -1};
    t.roles[EOS].id = extra->n_eos > 0 ? extra->eos[0] : -1;
    t.roles[BOS].id = extra->bos;
    t.roles[PAD].id = extra->pad;
    Status st = hf_text_read(&text, path, "this tokenizer", TOKENIZER_MAX);
    const char *class = st == OK ? read_file(&t, strbuf_text(&text), (int64_t)text.len) : NULL;
    if (class != NULL) {
        warn_of_ids(&t, vocab);
        print_config(&t, class, extra->max_positions, out);
    }
    strbuf_free(&text);
    for (int i = 0; i < N_ROLES; i++) free(t.roles[i].text);
    strbuf_free(&t.added);
    return st;
}
