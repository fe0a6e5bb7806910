/* peak.h - what the rules that find the peak of a schedule share: the length of the run, and the mean with it. */
#ifndef GL_PEAK_H
#define GL_PEAK_H

#include <math.h>

/* The rate at which a run makes a random walk of length 1, in units of the parameters: its steps are eta ||d||/||x||
 * long, `relative` = ||d||^2/||x||^2, and the schedule's factors have the sum of squares `energy`.  0 if unknown. */
static inline double gl_walk(double relative, double energy) {
    return relative > 0 && energy > 0 ? 1 / sqrt(relative * energy) : 0;
}

/* gain z^(1-share) h^share; gain z where h is unknown.  An h that is far from z says little: of parameters which start
 * near zero and are to grow it is too low, of trained ones which have nearly arrived too high.  It counts as at most
 * `apart` decades away. */
static inline double gl_peak_between(double gain, double z, double h, double share, double apart) {
    return h > 0 && isfinite(h)
               ? gain * pow(z, 1 - share) * pow(fmin(fmax(h, z * pow(10, -apart)), z * pow(10, apart)), share)
               : gain * z;
}

#endif
