#include "ckpt/lineage.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* Whether a text is a list of one object or more: what is not, as an unknown version may write it,
 * is left out of the lists that contain it. */
static bool is_list(const char *text) {
    Json j;
    int64_t n = 0;
    if (text == NULL) return false;
    json_start(&j, text, (int64_t)strlen(text));
    json_array(&j);
    for (; json_array_next(&j); n++) {
        char *key;
        json_object(&j);
        for (; json_object_next(&j, &key); free(key)) json_skip(&j);
    }
    json_end(&j);
    return j.error == NULL && n > 0;
}

void lineage_print_object(const Checkpoint *ck, const char *path, double weight, StrBuf *out) {
    const char *step = checkpoint_entry(ck, "cria.step");
    const char *crc = checkpoint_entry(ck, "cria.weights_crc");
    const char *merged = checkpoint_entry(ck, MERGED_ENTRY);
    char *absolute = realpath(path, NULL);
    strbuf_printf(out, "{\"path\":");
    strbuf_json_string(out, absolute != NULL ? absolute : path);
    strbuf_printf(out,
                  ",\"step\":%lld,\"weights_crc\":", step != NULL ? strtoll(step, NULL, 10) : 0);
    if (crc != NULL)
        strbuf_json_string(out, crc);
    else
        strbuf_printf(out, "null");
    if (weight > 0) strbuf_printf(out, ",\"weight\":%.17g", weight);
    if (is_list(merged)) strbuf_printf(out, ",\"merged\":%s", merged);
    strbuf_printf(out, "}");
    free(absolute);
}

char *lineage_of_branch(const Checkpoint *parent, const char *path) {
    const char *older = checkpoint_entry(parent, LINEAGE_ENTRY);
    StrBuf text = {0};
    strbuf_printf(&text, "[");
    lineage_print_object(parent, path, 0, &text);
    if (is_list(older))
        strbuf_printf(&text, ",%s", strchr(older, '[') + 1);
    else
        strbuf_printf(&text, "]");
    return text.text;
}

/* ---- for people ------------------------------------------------------------------------------ */

static void describe_object(Json *j, const char *label, StrBuf *out) {
    char *key, *path = NULL, *crc = NULL;
    int64_t step = 0;
    double weight = 0;
    json_object(j);
    for (; json_object_next(j, &key); free(key)) {
        if (strcmp(key, "path") == 0 && path == NULL)
            path = json_string(j);
        else if (strcmp(key, "weights_crc") == 0 && crc == NULL && json_peek(j) == '"')
            crc = json_string(j);
        else if (strcmp(key, "step") == 0)
            step = json_int(j);
        else if (strcmp(key, "weight") == 0)
            weight = json_double(j);
        else
            json_skip(j);
    }
    strbuf_printf(out, "  %-16s %s: step %lld", label, path != NULL ? path : "?", (long long)step);
    if (crc != NULL) strbuf_printf(out, ", weights %s", crc);
    if (weight > 0) strbuf_printf(out, ", share %.6g", weight);
    strbuf_printf(out, "\n");
    free(path);
    free(crc);
}

static void describe_list(const char *text, const char *first, const char *other, StrBuf *out) {
    Json j;
    if (!is_list(text)) return;
    json_start(&j, text, (int64_t)strlen(text));
    json_array(&j);
    for (const char *label = first; json_array_next(&j); label = other)
        describe_object(&j, label, out);
}

void lineage_describe(const char *lineage, const char *merged, StrBuf *out) {
    describe_list(merged, "average of", "and", out);
    describe_list(lineage, "branch of", "which is of", out);
}
