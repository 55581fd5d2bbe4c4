#include "text/split.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

struct Split {
    pcre2_code *code;
    pcre2_match_data *match;
};

/* PCRE2's \s has U+180E, which lost the property White_Space in Unicode 6.3 and which `tokenizers`
 * does not take for a space. */
#define WHITE_SPACE "\\p{Z}\\x09-\\x0d\\x85"

/* The pattern with \s and \S written out; inside of [...] only \s can be. */
static StrBuf with_white_space(const char *pattern) {
    StrBuf out = {0};
    bool in_class = false;
    for (const char *p = pattern; *p != '\0'; p++) {
        if (*p == '\\' && p[1] == 's') {
            strbuf_printf(&out, in_class ? "%s" : "[%s]", WHITE_SPACE);
            p++;
        } else if (*p == '\\' && p[1] == 'S' && !in_class) {
            strbuf_printf(&out, "[^%s]", WHITE_SPACE);
            p++;
        } else if (*p == '\\' && p[1] != '\0') {
            strbuf_append(&out, p++, 2);
        } else {
            if (*p == '[' || *p == ']') in_class = *p == '[';
            strbuf_append(&out, p, 1);
        }
    }
    return out;
}

Status split_compile(Split **out, const char *pattern) {
    StrBuf text = with_white_space(pattern);
    int error;
    PCRE2_SIZE at;
    pcre2_code *code = pcre2_compile(
        (PCRE2_SPTR)strbuf_text(&text), text.len,
        PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C, &error, &at, NULL);
    strbuf_free(&text);
    if (code == NULL) {
        char message[128];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)message, sizeof message);
        return status_fail(ERR_USER, "the pattern %s is not a regular expression: %s", pattern,
                           message);
    }
    *out = NEW(Split, 1);
    **out = (Split){code, pcre2_match_data_create_from_pattern(code, NULL)};
    return OK;
}

void split_free(Split *split) {
    if (split == NULL) return;
    pcre2_match_data_free(split->match);
    pcre2_code_free(split->code);
    free(split);
}

Status split_find(const Split *split, const char *text, int64_t n, int64_t from, int64_t *begin,
                  int64_t *end) {
    *begin = *end = n;
    if (split->match == NULL) return status_fail(ERR_ENV, "out of memory for a regular expression");
    int found = pcre2_match(split->code, (PCRE2_SPTR)text, (PCRE2_SIZE)n, (PCRE2_SIZE)from,
                            PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK, split->match, NULL);
    if (found == PCRE2_ERROR_NOMATCH) return OK;
    if (found < 0) {
        char message[128];
        pcre2_get_error_message(found, (PCRE2_UCHAR *)message, sizeof message);
        return status_fail(ERR_USER, "the tokenizer's pattern cannot be matched: %s", message);
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(split->match);
    *begin = (int64_t)at[0];
    *end = (int64_t)at[1];
    return OK;
}
