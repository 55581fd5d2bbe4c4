/* extra.c: what config.json says that no key of the configuration holds. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hf/hf.h"

#define MAX_POSITIONS "max_position_embeddings"
#define LENGTH_MAX    (1LL << 29) /* of model.seq_len, so that an export can be imported */

bool hf_extra_read(HfExtra *extra, const char *key, Json *j) {
    bool bos = strcmp(key, "bos_token_id") == 0, pad = strcmp(key, "pad_token_id") == 0;
    char kind = json_peek(j);
    if (!bos && !pad && strcmp(key, "eos_token_id") != 0) return false;
    if (bos || pad) {
        int64_t *id = bos ? &extra->bos : &extra->pad;
        *id = -1;
        if (kind == 'n')
            json_skip(j);
        else
            *id = json_int(j);
        return true;
    }
    extra->n_eos = 0;
    if (kind == 'n') {
        json_skip(j);
    } else if (kind != '[') {
        extra->eos[extra->n_eos++] = json_int(j);
    } else {
        for (json_array(j); json_array_next(j);) {
            int64_t id = json_int(j);
            if (extra->n_eos == HF_EOS_MAX && j->error == NULL)
                j->error = "more ids in eos_token_id than cria keeps";
            if (j->error == NULL) extra->eos[extra->n_eos++] = id;
        }
    }
    return true;
}

void hf_extra_limit(HfExtra *extra, int vocab) {
    int kept = 0;
    if (extra->bos < 0 || extra->bos >= vocab) extra->bos = -1;
    if (extra->pad < 0 || extra->pad >= vocab) extra->pad = -1;
    for (int i = 0; i < extra->n_eos; i++)
        if (extra->eos[i] >= 0 && extra->eos[i] < vocab) extra->eos[kept++] = extra->eos[i];
    extra->n_eos = kept;
}

void hf_extra_print(const HfExtra *extra, StrBuf *out) {
    strbuf_printf(out, "{\"" MAX_POSITIONS "\": %lld", (long long)extra->max_positions);
    if (extra->bos >= 0) strbuf_printf(out, ", \"bos_token_id\": %lld", (long long)extra->bos);
    if (extra->pad >= 0) strbuf_printf(out, ", \"pad_token_id\": %lld", (long long)extra->pad);
    strbuf_printf(out, ", \"eos_token_id\": [");
    for (int i = 0; i < extra->n_eos; i++)
        strbuf_printf(out, "%s%lld", i > 0 ? ", " : "", (long long)extra->eos[i]);
    strbuf_printf(out, "]}");
}

Status hf_extra_parse(HfExtra *out, const char *name, const char *text) {
    *out = (HfExtra){.bos = -1, .pad = -1};
    if (text == NULL) return OK;
    Json j;
    char *key;
    json_start(&j, text, (int64_t)strlen(text));
    for (json_object(&j); json_object_next(&j, &key); free(key)) {
        if (strcmp(key, MAX_POSITIONS) == 0)
            out->max_positions = json_int(&j);
        else if (!hf_extra_read(out, key, &j))
            json_skip(&j);
    }
    json_end(&j);
    if (j.error == NULL && out->max_positions >= 0 && out->max_positions <= LENGTH_MAX) return OK;
    return status_fail(ERR_USER, "%s: its entry " HF_ENTRY " is not one that cria wrote: %s", name,
                       j.error != NULL ? j.error : MAX_POSITIONS " is out of bounds");
}

/* transformers warns of a model with RoPE scaling that is no longer than the unscaled one. */
static int64_t resolve_length(int64_t kept, const ModelConfig *m) {
    int64_t length = i64_max(kept, m->seq_len);
    bool scaled = m->rope_scaling.factor != 1;
    if (!scaled || (kept > 0 && length > m->rope_scaling.original)) return length;
    double stretched = ceil(m->rope_scaling.factor * (double)m->rope_scaling.original);
    return i64_max(length, stretched < (double)LENGTH_MAX ? (int64_t)stretched : LENGTH_MAX);
}

HfExtra hf_extra_resolve(const HfExtra *kept, const Config *c) {
    HfExtra x = *kept;
    x.max_positions = resolve_length(kept->max_positions, &c->model);
    x.n_eos = 0;
    if (c->data.eod >= 0) x.eos[x.n_eos++] = c->data.eod;
    for (int i = 0; i < kept->n_eos && x.n_eos < HF_EOS_MAX; i++)
        if (kept->eos[i] != c->data.eod) x.eos[x.n_eos++] = kept->eos[i];
    hf_extra_limit(&x, c->model.vocab);
    return x;
}
