/* From a text to the buckets of its n-grams: what encoder.py does with arrays. */
#ifndef SLUICE_GRAMS_H
#define SLUICE_GRAMS_H

/* Two builds of the inner loops, chosen when the module is loaded; lanes change no sum's order. */
#if defined(__x86_64__) && defined(__GLIBC__) && (!defined(__clang__) || __clang_major__ >= 14)
#define FOR_PROCESSORS __attribute__((target_clones("avx2", "default")))
#else
#define FOR_PROCESSORS
#endif

#define BASE 0x9E3779B97F4A7C15u
#define MIX 0xD6E8FEB86659FD93u
#define WORD_SALT 0xA0761D6478BD642Fu
#define MOST_ORDERS 8
#define MOST_LENGTH 16

typedef struct {
    int word_orders, shortest, longest, bits;
    Py_ssize_t max_characters;
} Options;

typedef struct {
    void *memory;
    size_t size;
} Work;

/* One text: words with a space before, between and after them, and where those spaces are. */
typedef struct {
    uint8_t *data;
    uint32_t *spaces;
    size_t length, words;
} Words;

static void *reserve(Work *work, size_t size)
{
    if (size > work->size) {
        void *memory = malloc(size);
        if (memory == NULL)
            return NULL;
        free(work->memory);
        work->memory = memory;
        work->size = size;
    }
    return work->memory;
}

/* What a byte becomes: itself, its small letter, or 0 where it parts words. */
static const uint8_t *kept_bytes(void)
{
    static uint8_t kept[256];
    static int made = 0;
    if (!made) {
        for (int code = 0; code < 256; code++) {
            const int small = code >= 'a' && code <= 'z', large = code >= 'A' && code <= 'Z';
            const int digit = code >= '0' && code <= '9';
            kept[code] = large ? code + 32 : (code >= 0x80 || small || digit || code == '\'') ? code : 0;
        }
        made = 1;
    }
    return kept;
}

/* Return the UTF-8 of a text's kept start; `owner` gets what holds it, and has to be released. NULL: error. */
static const char *utf8_of(PyObject *text, Py_ssize_t most, Py_ssize_t *size, PyObject **owner)
{
    *owner = NULL;
    if (!PyUnicode_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "a text has to be a str");
        return NULL;
    }
    const char *bytes = PyUnicode_AsUTF8AndSize(text, size);
    if (bytes != NULL && *size == PyUnicode_GetLength(text)) { /* ASCII: small letters come later */
        if (*size > most)
            *size = most;
        Py_INCREF(text);
        *owner = text;
        return bytes;
    }
    if (bytes == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
            return NULL;
        PyErr_Clear();
    }
    PyObject *start = PyUnicode_Substring(text, 0, most);
    PyObject *lowered = start == NULL ? NULL : PyObject_CallMethod(start, "lower", NULL);
    PyObject *encoded = lowered == NULL ? NULL : PyUnicode_AsEncodedString(lowered, "utf-8", "replace");
    Py_XDECREF(start);
    Py_XDECREF(lowered);
    char *found = NULL;
    if (encoded == NULL || PyBytes_AsStringAndSize(encoded, &found, size) < 0) {
        Py_XDECREF(encoded);
        return NULL;
    }
    *owner = encoded;
    return found;
}

/* Fill `words`, whose arrays have room; needs no GIL. */
static void split(const char *bytes, size_t size, Words *words)
{
    const uint8_t *kept = kept_bytes();
    uint8_t *data = words->data;
    size_t length = 1;
    data[0] = ' ';
    for (size_t i = 0; i < size; i++) {
        const uint8_t byte = kept[(uint8_t)bytes[i]];
        data[length] = byte ? byte : ' ';
        length += (byte != 0) | (data[length - 1] != ' ');
    }
    data[length] = ' ';
    length += data[length - 1] != ' ';
    size_t spaces = 0;
    for (size_t i = 0; i < length; i++) {
        words->spaces[spaces] = (uint32_t)i;
        spaces += data[i] == ' ';
    }
    words->length = length;
    words->words = spaces - 1;
}

static int read_words(const char *bytes, size_t size, Work *work, Words *words)
{
    const size_t places = size + 8;
    uint8_t *memory = reserve(work, places * (sizeof(uint32_t) + 1));
    if (memory == NULL)
        return -1;
    words->spaces = (uint32_t *)memory;
    words->data = memory + places * sizeof(uint32_t);
    split(bytes, size, words);
    return 0;
}

static size_t count_grams(const Options *options, const Words *words)
{
    size_t found = 0;
    if (words->words == 0)
        return 0;
    for (int size = options->shortest; size <= options->longest; size++)
        if ((size_t)size <= words->length)
            found += words->length + 1 - size;
    for (int order = 1; order <= options->word_orders; order++)
        if ((size_t)order <= words->words)
            found += words->words + 1 - order;
    return found;
}

static inline uint32_t bucket_of(uint64_t hash, int shift)
{
    hash ^= hash >> 32;
    return (uint32_t)((hash * MIX) >> shift);
}

/* Write the bucket of every n-gram: characters by size and place, then words by order and place.
 *
 * The hash of bytes b is the sum of b[j] * BASE**j modulo 2**64. `sums` has room for every byte.
 */
FOR_PROCESSORS
static void hash_grams(const Options *options, const Words *words, uint64_t *sums, uint32_t *out)
{
    const uint8_t *data = words->data;
    const size_t length = words->length;
    const int shift = 64 - options->bits;
    uint64_t power = 1;
    memset(sums, 0, length * sizeof *sums);
    for (int size = 1; size <= options->longest && (size_t)size <= length; size++) {
        const size_t places = length + 1 - size;
        for (size_t start = 0; start < places; start++)
            sums[start] += power * data[start + size - 1];
        if (size >= options->shortest) {
            for (size_t start = 0; start < places; start++)
                out[start] = bucket_of(sums[start], shift);
            out += places;
        }
        power *= BASE;
    }
    uint32_t *of_order[MOST_ORDERS + 1];
    for (int order = 1; order <= options->word_orders && (size_t)order <= words->words; order++) {
        of_order[order] = out;
        out += words->words + 1 - order;
    }
    for (size_t word = 0; word < words->words; word++) {
        size_t place = words->spaces[word];
        uint64_t sum = WORD_SALT;
        power = 1;
        for (int order = 1; order <= options->word_orders && word + order <= words->words; order++) {
            for (const size_t end = words->spaces[word + order]; place < end; place++) {
                sum += power * data[place];
                power *= BASE;
            }
            of_order[order][word] = bucket_of(sum, shift);
        }
    }
}

static int read_options(PyObject *given, Options *options)
{
    if (!PyArg_ParseTuple(given, "iiiin", &options->word_orders, &options->shortest, &options->longest,
                          &options->bits, &options->max_characters))
        return -1;
    if (options->word_orders < 0 || options->word_orders > MOST_ORDERS || options->shortest < 1 ||
        options->longest < 0 || options->longest > MOST_LENGTH || options->bits < 8 || options->bits > 28 ||
        options->max_characters < 1 || options->max_characters > 1 << 20) {
        PyErr_SetString(PyExc_ValueError, "n-gram options out of range");
        return -1;
    }
    return 0;
}

#endif
