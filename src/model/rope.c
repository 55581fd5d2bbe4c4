#include "model/rope.h"

#include <math.h>

void rope_inv_freq(float *inv_freq, const ModelConfig *m) {
    double factor = m->rope_scaling.factor, low = m->rope_scaling.low, high = m->rope_scaling.high;
    double original = (double)m->rope_scaling.original;
    for (int i = 0; i < m->head_dim / 2; i++) {
        double inv = pow(m->rope_theta, -2.0 * i / m->head_dim);
        double wavelength = 2.0 * 3.14159265358979323846 / inv;
        if (factor > 1 && wavelength > original / low) {
            inv /= factor;
        } else if (factor > 1 && wavelength >= original / high) {
            double keep = (original / wavelength - low) / (high - low);
            inv = (1 - keep) * inv / factor + keep * inv;
        }
        inv_freq[i] = (float)inv;
    }
}
