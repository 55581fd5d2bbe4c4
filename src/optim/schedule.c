#include "optim/schedule.h"

#include <math.h>

double schedule_lr(const OptimConfig *o, int64_t steps, int64_t t) {
    double lr = o->lr, min = o->min_lr;
    t += o->schedule_start - 1;
    if (o->warmup_steps > 0 && t <= o->warmup_steps)
        return lr * (double)t / (double)o->warmup_steps;
    int64_t begin = o->warmup_steps, end = o->decay_steps > 0 ? o->decay_steps : steps;
    if (o->schedule == SCHEDULE_WSD) {
        int64_t length = o->decay_steps > 0 ? o->decay_steps : ceil_div(steps, 10);
        begin = i64_max(begin, steps - length);
        end = steps;
    }
    if (o->schedule == SCHEDULE_CONSTANT || t <= begin) return lr;
    if (t >= end) return min;
    double x = (double)(t - begin) / (double)(end - begin);
    if (o->schedule == SCHEDULE_COSINE)
        return min + 0.5 * (lr - min) * (1 + cos(3.14159265358979323846 * x));
    return lr + (min - lr) * x;
}
