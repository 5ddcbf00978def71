/* From the buckets of a text to logits: what features.py, linear.py and deep_table.py do with arrays. */
#ifndef SLUICE_SCORES_H
#define SLUICE_SCORES_H

#include "_grams.h"

#define MOST_BUFFERS 9
#define AHEAD 8 /* rows that are fetched before they are needed */
#define LINE 64 /* bytes of a cache line */

/* A model over the rows of known buckets: linear (weights) or deep (vectors, hidden units, dense).
 *
 * A bucket's row is its rank among those known: `known` has a bit per bucket, `before` the rank of every
 * 64th. Both stay in the processor's near caches, where a table of rows would not.
 */
typedef struct {
    PyObject_HEAD
    Options options;
    uint64_t *known;
    uint32_t *before;
    size_t rows, classes, hidden, logs_size;
    const float *idf, *logs, *bias, *weights;
    const int8_t *vectors, *dense;
    const float *vector_scales, *hidden_bias, *dense_scales;
    Py_buffer buffers[MOST_BUFFERS];
    int held;
} Scorer;

FOR_PROCESSORS
static size_t find_rows(const uint64_t *known, const uint32_t *before, uint32_t *grams, size_t count)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t bucket = grams[i];
        const uint64_t bits = known[bucket >> 6], bit = (uint64_t)1 << (bucket & 63);
        grams[found] = before[bucket >> 6] + (uint32_t)__builtin_popcountll(bits & (bit - 1));
        found += (bits & bit) != 0;
    }
    return found;
}

/* Sort ascending, by bytes; `spare` is as long. Returns the one of both that holds the result. */
static uint32_t *sort_rows(uint32_t *rows, uint32_t *spare, size_t count, size_t most)
{
    for (int shift = 0; shift < 32 && (most >> shift) > 0; shift += 8) {
        uint32_t places[256] = {0}, sum = 0;
        for (size_t i = 0; i < count; i++)
            places[(rows[i] >> shift) & 255]++;
        for (int digit = 0; digit < 256; digit++) {
            const uint32_t here = places[digit];
            places[digit] = sum;
            sum += here;
        }
        for (size_t i = 0; i < count; i++)
            spare[places[(rows[i] >> shift) & 255]++] = rows[i];
        uint32_t *other = rows;
        rows = spare;
        spare = other;
    }
    return rows;
}

/* Make sorted rows distinct, in place, and write their normalised tf-idf; return how many they are. */
static size_t weigh(const Scorer *scorer, uint32_t *rows, size_t count, float *values)
{
    size_t distinct = 0;
    double squares = 0.0;
    for (size_t i = 0; i < count;) {
        const uint32_t row = rows[i];
        size_t times = 1;
        while (i + times < count && rows[i + times] == row)
            times++;
        i += times;
        const float value = scorer->logs[times < scorer->logs_size ? times : scorer->logs_size - 1] * scorer->idf[row];
        squares += (double)value * (double)value;
        rows[distinct] = row;
        values[distinct++] = value;
    }
    if (squares > 0.0) {
        const float norm = (float)sqrt(squares);
        for (size_t i = 0; i < distinct; i++)
            values[i] /= norm;
    }
    return distinct;
}

static inline void fetch(const void *start, size_t size)
{
    for (size_t place = 0; place < size; place += LINE)
        __builtin_prefetch((const char *)start + place);
}

/* sums[j] += values[i] * table[rows[i], j], one row after the other. */
FOR_PROCESSORS
static void add_rows(const float *restrict table, size_t width, const uint32_t *rows, const float *values,
                     size_t count, float *restrict sums)
{
    for (size_t i = 0; i < count; i++) {
        const float *row = table + (size_t)rows[i] * width;
        const float value = values[i];
        if (i + AHEAD < count)
            fetch(table + (size_t)rows[i + AHEAD] * width, width * sizeof *table);
        for (size_t j = 0; j < width; j++)
            sums[j] += value * row[j];
    }
}

/* The same for rows of int8, each with a factor of its own in `values`. */
FOR_PROCESSORS
static void add_small_rows(const int8_t *restrict table, size_t width, const uint32_t *rows,
                           const float *values, size_t count, float *restrict sums)
{
    for (size_t i = 0; i < count; i++) {
        const int8_t *row = table + (size_t)rows[i] * width;
        const float value = values[i];
        if (i + AHEAD < count)
            fetch(table + (size_t)rows[i + AHEAD] * width, width);
        for (size_t j = 0; j < width; j++)
            sums[j] += value * (float)row[j];
    }
}

/* sums[j] += hidden[i] * dense[i, j] for the units that are not silent: the others add nothing. */
FOR_PROCESSORS
static void add_units(const int8_t *restrict dense, size_t width, const float *hidden, size_t count,
                      float *restrict sums)
{
    for (size_t i = 0; i < count; i++) {
        const int8_t *row = dense + i * width;
        const float value = hidden[i];
        if (value == 0.0f)
            continue;
        for (size_t j = 0; j < width; j++)
            sums[j] += value * (float)row[j];
    }
}

static void linear_logits(const Scorer *scorer, const uint32_t *rows, const float *values, size_t count,
                          float *out)
{
    memset(out, 0, scorer->classes * sizeof *out);
    add_rows(scorer->weights, scorer->classes, rows, values, count, out);
    for (size_t j = 0; j < scorer->classes; j++)
        out[j] += scorer->bias[j];
}

static void deep_logits(const Scorer *scorer, const uint32_t *rows, float *values, size_t count,
                        float *hidden, float *out)
{
    for (size_t i = 0; i < count; i++)
        values[i] *= scorer->vector_scales[rows[i]];
    memset(hidden, 0, scorer->hidden * sizeof *hidden);
    add_small_rows(scorer->vectors, scorer->hidden, rows, values, count, hidden);
    for (size_t j = 0; j < scorer->hidden; j++) {
        const float unit = hidden[j] + scorer->hidden_bias[j];
        hidden[j] = unit < 0.0f ? 0.0f : unit;
    }
    memset(out, 0, scorer->classes * sizeof *out);
    add_units(scorer->dense, scorer->classes, hidden, scorer->hidden, out);
    for (size_t j = 0; j < scorer->classes; j++) {
        const float product = out[j] * scorer->dense_scales[j];
        out[j] = product + scorer->bias[j];
    }
}

/* Write the logits [classes] of one text; needs no GIL. Returns -1 where memory is out. */
static int score(const Scorer *scorer, const char *bytes, size_t size, Work *text_work, Work *gram_work,
                 float *out)
{
    Words words;
    if (read_words(bytes, size, text_work, &words) < 0)
        return -1;
    const size_t grams = count_grams(&scorer->options, &words);
    /* sums, later the values; buckets, later the rows; spare; hidden units */
    const size_t wide = words.length > grams ? words.length : grams;
    char *memory = reserve(gram_work, wide * sizeof(uint64_t) + 2 * grams * sizeof(uint32_t) +
                                          (scorer->hidden + 1) * sizeof(float));
    if (memory == NULL)
        return -1;
    uint64_t *sums = (uint64_t *)memory;
    uint32_t *rows = (uint32_t *)(memory + wide * sizeof(uint64_t));
    uint32_t *spare = rows + grams;
    float *hidden = (float *)(spare + grams);
    size_t count = 0;
    if (grams > 0) {
        hash_grams(&scorer->options, &words, sums, rows);
        count = find_rows(scorer->known, scorer->before, rows, grams);
        rows = sort_rows(rows, spare, count, scorer->rows - (scorer->rows > 0));
        count = weigh(scorer, rows, count, (float *)memory);
    }
    if (scorer->weights != NULL)
        linear_logits(scorer, rows, (float *)memory, count, out);
    else
        deep_logits(scorer, rows, (float *)memory, count, hidden, out);
    return 0;
}

#endif
