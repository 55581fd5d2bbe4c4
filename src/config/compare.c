/* compare.c: what a configuration changes on the way from a checkpoint. */
#include "config/keys.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* Do documents matter to attention, positions, loss or the split? */
static bool uses_eod(const Config *c) {
    return c->data.mask == MASK_DOCUMENT || c->data.reset_positions || c->data.eod_mask_loss ||
           c->data.split[0] != '\0';
}

/* Of a key that has another value. DIFFERS_KINDS: it does not change results. */
static ConfigDifference kind_of(const ConfigKey *k, const Config *was, const Config *is) {
    static const ConfigDifference kinds[] = {
        [AFFECTS_NOTHING] = DIFFERS_KINDS, [AFFECTS_INITIAL_WEIGHTS] = DIFFERS_KINDS,
        [AFFECTS_MODEL] = DIFFERS_MODEL,   [AFFECTS_BATCHES] = DIFFERS_BATCHES,
        [AFFECTS_COURSE] = DIFFERS_COURSE, [AFFECTS_LATER_STEPS] = DIFFERS_COURSE};
    if (k->offset == offsetof(Config, data.eod) && !uses_eod(was) && !uses_eod(is))
        return DIFFERS_KINDS;
    if (text_starts_with(k->name, "model.rope_scaling.") && was->model.rope_scaling.factor == 1 &&
        is->model.rope_scaling.factor == 1)
        return DIFFERS_KINDS;
    return kinds[k->affects_result];
}

/* Of data.train only the weights: files, which may be moved, are compared by their contents. */
static bool same_weights(const Config *was, const Config *is) {
    if (was->data.n_train != is->data.n_train) return true; /* the files are others, too */
    for (int i = 0; i < is->data.n_train; i++)
        if (was->data.train[i].weight != is->data.train[i].weight) return false;
    return true;
}

int config_differences(const Config *was, const Config *is, ConfigDifference kind, StrBuf *out) {
    int n = 0;
    for (int i = 0; i < config_n_keys; i++) {
        const ConfigKey *k = &config_keys[i];
        if (kind_of(k, was, is) != kind) continue;
        if (k->type == KEY_SOURCES && same_weights(was, is)) continue;
        StrBuf before = {0}, now = {0};
        config_value_print(k, was, false, &before);
        config_value_print(k, is, false, &now);
        if (strcmp(strbuf_text(&before), strbuf_text(&now)) != 0)
            strbuf_printf(out, "%s%s %s -> %s", n++ > 0 ? ", " : "", k->name, strbuf_text(&before),
                          strbuf_text(&now));
        strbuf_free(&before);
        strbuf_free(&now);
    }
    return n;
}
