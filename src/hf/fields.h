/* fields.h: what config.json and cria's configuration both say of a model: import reads by these
 * tables, export writes by them. */
#ifndef CRIA_HF_FIELDS_H
#define CRIA_HF_FIELDS_H

#include "config/config.h"

/* A number or flag of the model. `otherwise` is what LlamaConfig takes when the field is missing or
 * null; NULL: required, a dimension that nobody leaves to a default; "": as many as heads. */
typedef struct {
    const char *name, *key; /* in config.json; in the section `model` */
    const char *otherwise;
    enum { HF_INT, HF_INT64, HF_DOUBLE, HF_BOOL } type;
    size_t offset; /* in ModelConfig */
} HfField;

enum { HF_HEADS = 2, HF_ROPE_THETA = 11, HF_SCALING = 12, HF_FIELDS = 16 };
extern const HfField hf_fields[HF_FIELDS]; /* from HF_SCALING on: of rope_scaling */

/* A field that changes what the model computes: cria computes this and nothing else. */
typedef struct {
    const char *name, *value, *same; /* JSON; same: another spelling, or NULL */
    bool exported;
} HfFact;
enum { HF_MODEL_TYPE, HF_PARTIAL_ROTARY, HF_FACTS = 6 };
extern const HfFact hf_facts[HF_FACTS];
#define HF_ARCHITECTURE "LlamaForCausalLM"

#endif
