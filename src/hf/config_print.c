/* config_print.c: config.json and generation_config.json of an export. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hf/fields.h"
#include "hf/hf.h"

/* The members of an object of JSON. */
typedef struct {
    const char *name;
    char *value;
} Member;
typedef struct {
    Member members[HF_FIELDS + HF_FACTS + 16];
    int n;
} Object;

static void add(Object *o, const char *name, char *value) {
    o->members[o->n++] = (Member){name, value};
}

static void add_text(Object *o, const char *name, const char *value) {
    add(o, name, mem_strdup(value));
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const Member *)a)->name, ((const Member *)b)->name);
}

/* Sorted by name, as transformers does. Empties it. */
static void print_object(Object *o, int indent, StrBuf *out) {
    qsort(o->members, (size_t)o->n, sizeof *o->members, by_name);
    for (int i = 0; i < o->n; i++) {
        strbuf_printf(out, "%s\n%*s\"%s\": %s", i > 0 ? "," : "{", indent + 2, "",
                      o->members[i].name, o->members[i].value);
        free(o->members[i].value);
    }
    strbuf_printf(out, "\n%*s}", indent, "");
    o->n = 0;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* As Python's repr: the shortest text that reads back to v, and never without a point or an
 * exponent, because transformers tells floats from integers. */
static char *double_text(double v) {
    char text[40];
    int digits = 0, exponent;
    do snprintf(text, sizeof text, "%.*e", digits, v);
    while (strtod(text, NULL) != v && ++digits < 17);
    exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exponent >= -4 && exponent < 16)
        snprintf(text, sizeof text, "%.*f", exponent < digits ? digits - exponent : 1, v);
    return mem_strdup(text);
}

static char *id_text(int64_t id) {
    return id >= 0 ? mem_printf("%lld", (long long)id) : mem_strdup("null");
}

/* A list when there are several. */
static char *eos_text(const HfExtra *extra) {
    if (extra->n_eos < 2) return id_text(extra->n_eos > 0 ? extra->eos[0] : -1);
    StrBuf list = {0};
    for (int i = 0; i < extra->n_eos; i++)
        strbuf_printf(&list, "%s\n    %lld", i > 0 ? "," : "[", (long long)extra->eos[i]);
    strbuf_printf(&list, "\n  ]");
    return list.text;
}

static char *field_text(const HfField *f, const ModelConfig *m) {
    const void *value = (const char *)m + f->offset;
    switch (f->type) {
    case HF_INT:
        return mem_printf("%d", *(const int *)value);
    case HF_INT64:
        return mem_printf("%lld", (long long)*(const int64_t *)value);
    case HF_DOUBLE:
        return double_text(*(const double *)value);
    case HF_BOOL:
        return mem_strdup(*(const bool *)value ? "true" : "false");
    }
    return NULL;
}

static char *scaling_text(const ModelConfig *m) {
    Object o = {.n = 0};
    StrBuf text = {0};
    if (m->rope_scaling.factor == 1) return mem_strdup("null");
    for (int i = HF_SCALING; i < HF_FIELDS; i++)
        add(&o, hf_fields[i].name, field_text(&hf_fields[i], m));
    add_text(&o, "rope_type", "\"llama3\"");
    print_object(&o, 2, &text);
    return text.text;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* rope_theta and rope_scaling have the place that transformers 4 knows and 5 still reads. Ids that
 * are not known must be null, not left to LlamaConfig's defaults. The version names the form;
 * without one, or with a later one of transformers 4, it warns of a "wrong regex" in any tokenizer
 * of over 100,000 ids, and its advice would change the ids. */
void hf_config_print(const Config *c, const HfExtra *extra, Dtype dtype, StrBuf *out) {
    const char *type = dtype == DT_BF16 ? "\"bfloat16\"" : "\"float32\"";
    ModelConfig m = c->model;
    Object o = {.n = 0};
    m.seq_len = extra->max_positions;
    for (int i = 0; i < HF_SCALING; i++) add(&o, hf_fields[i].name, field_text(&hf_fields[i], &m));
    for (int i = 0; i < HF_FACTS; i++)
        if (hf_facts[i].exported) add_text(&o, hf_facts[i].name, hf_facts[i].value);
    add_text(&o, "architectures", "[\n    \"" HF_ARCHITECTURE "\"\n  ]");
    add_text(&o, "attention_dropout", "0.0");
    add_text(&o, "dtype", type);
    add_text(&o, "pretraining_tp", "1");
    add_text(&o, "torch_dtype", type);
    add_text(&o, "transformers_version", "\"4.57.1\"");
    add_text(&o, "use_cache", "true");
    add(&o, "bos_token_id", id_text(extra->bos));
    add(&o, "eos_token_id", eos_text(extra));
    if (extra->pad >= 0) add(&o, "pad_token_id", id_text(extra->pad));
    add(&o, "rope_scaling", scaling_text(&m));
    print_object(&o, 0, out);
    strbuf_printf(out, "\n");
}

void hf_generation_print(const HfExtra *extra, StrBuf *out) {
    Object o = {.n = 0};
    add_text(&o, "_from_model_config", "true");
    if (extra->bos >= 0) add(&o, "bos_token_id", id_text(extra->bos));
    if (extra->n_eos > 0) add(&o, "eos_token_id", eos_text(extra));
    if (extra->pad >= 0) add(&o, "pad_token_id", id_text(extra->pad));
    print_object(&o, 0, out);
    strbuf_printf(out, "\n");
}
