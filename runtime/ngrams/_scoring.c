/* From a text to logits in one call: what encoder.py, linear.py and deep_table.py do with arrays.
 *
 * Answers are theirs bit for bit, which tests/runtime/ngrams compare: sums of float32 go row by row in
 * ascending order, squares are summed in float64, and no product is fused with a sum (-ffp-contract=off).
 * Written for the limited API, so that one build serves every Python from 3.11 on.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__GNUC__)
#error "gcc or clang is needed; without them the same is computed by numpy"
#endif
#if FLT_EVAL_METHOD != 0
#error "float32 is computed in another precision here, so answers would differ from numpy's"
#endif

#include "_scores.h"

#define LONG_TEXT 4096 /* bytes: from here on other threads may run meanwhile */

static PyObject *hash_buckets(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *text, *given, *owner, *result = NULL;
    Options options;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "OO", &text, &given) || read_options(given, &options) < 0)
        return NULL;
    const char *bytes = utf8_of(text, options.max_characters, &size, &owner);
    if (bytes == NULL)
        return NULL;
    Work text_work = {0}, sum_work = {0};
    Words words;
    if (read_words(bytes, (size_t)size, &text_work, &words) < 0) {
        PyErr_NoMemory();
        goto done;
    }
    const size_t grams = count_grams(&options, &words);
    result = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(grams * sizeof(int64_t)));
    if (result == NULL || grams == 0)
        goto done;
    uint64_t *sums = reserve(&sum_work, words.length * sizeof(uint64_t) + grams * sizeof(uint32_t));
    if (sums == NULL) {
        Py_CLEAR(result);
        PyErr_NoMemory();
        goto done;
    }
    uint32_t *found = (uint32_t *)(sums + words.length);
    hash_grams(&options, &words, sums, found);
    char *target = PyByteArray_AsString(result);
    for (size_t i = 0; i < grams; i++) {
        const int64_t bucket = found[i];
        memcpy(target + i * sizeof bucket, &bucket, sizeof bucket);
    }
done:
    free(text_work.memory);
    free(sum_work.memory);
    Py_DECREF(owner);
    return result;
}

/* Hold the memory of `given`, of `count` items of `size` bytes. NULL: error. */
static const void *hold(Scorer *scorer, PyObject *given, size_t count, size_t size)
{
    Py_buffer *buffer = &scorer->buffers[scorer->held];
    if (PyObject_GetBuffer(given, buffer, PyBUF_C_CONTIGUOUS) < 0)
        return NULL;
    scorer->held++;
    if ((size_t)buffer->len != count * size || (size_t)buffer->itemsize != size) {
        PyErr_SetString(PyExc_ValueError, "the arrays of the model do not fit each other");
        return NULL;
    }
    return buffer->buf == NULL ? "" : buffer->buf; /* an empty array may have no memory */
}

static int know(Scorer *scorer, const uint32_t *buckets)
{
    const size_t words = (size_t)1 << (scorer->options.bits - 6);
    scorer->known = calloc(words, sizeof *scorer->known);
    scorer->before = calloc(words, sizeof *scorer->before);
    if (scorer->known == NULL || scorer->before == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t row = 0; row < scorer->rows; row++) {
        if (buckets[row] >> scorer->options.bits || (row > 0 && buckets[row] <= buckets[row - 1])) {
            PyErr_SetString(PyExc_ValueError, "buckets have to ascend below 2**bits");
            return -1;
        }
        scorer->known[buckets[row] >> 6] |= (uint64_t)1 << (buckets[row] & 63);
    }
    uint32_t rank = 0;
    for (size_t word = 0; word < words; word++) {
        scorer->before[word] = rank;
        rank += (uint32_t)__builtin_popcountll(scorer->known[word]);
    }
    return 0;
}

static Scorer *new_scorer(PyObject *type, PyObject *options, Py_ssize_t rows, Py_ssize_t classes,
                          PyObject *buckets, PyObject *idf, PyObject *logs, PyObject *bias)
{
    allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)type, Py_tp_alloc);
    Scorer *scorer = (Scorer *)alloc((PyTypeObject *)type, 0);
    if (scorer == NULL)
        return NULL;
    const Py_ssize_t length = PyObject_Length(logs);
    if (read_options(options, &scorer->options) < 0 || length < 0)
        goto failed;
    if (rows < 0 || rows > 1 << 28 || classes < 1 || classes > 1 << 20 || length < 2) {
        PyErr_SetString(PyExc_ValueError, "the shape of the model is out of range");
        goto failed;
    }
    scorer->rows = (size_t)rows;
    scorer->classes = (size_t)classes;
    scorer->logs_size = (size_t)length;
    const uint32_t *found = hold(scorer, buckets, scorer->rows, sizeof(uint32_t));
    if (found == NULL || (scorer->idf = hold(scorer, idf, scorer->rows, sizeof(float))) == NULL ||
        (scorer->logs = hold(scorer, logs, scorer->logs_size, sizeof(float))) == NULL ||
        (scorer->bias = hold(scorer, bias, scorer->classes, sizeof(float))) == NULL || know(scorer, found) < 0)
        goto failed;
    return scorer;
failed:
    Py_DECREF(scorer);
    return NULL;
}

static PyObject *linear(PyObject *type, PyObject *arguments)
{
    PyObject *options, *buckets, *idf, *logs, *bias, *weights;
    Py_ssize_t rows, classes;
    if (!PyArg_ParseTuple(arguments, "OnnOOOOO", &options, &rows, &classes, &buckets, &idf, &logs, &bias, &weights))
        return NULL;
    Scorer *scorer = new_scorer(type, options, rows, classes, buckets, idf, logs, bias);
    if (scorer == NULL)
        return NULL;
    scorer->weights = hold(scorer, weights, scorer->rows * scorer->classes, sizeof(float));
    if (scorer->weights == NULL) {
        Py_DECREF(scorer);
        return NULL;
    }
    return (PyObject *)scorer;
}

static PyObject *deep(PyObject *type, PyObject *arguments)
{
    PyObject *options, *buckets, *idf, *logs, *bias, *vectors, *scales, *hidden_bias, *dense, *dense_scales;
    Py_ssize_t rows, classes, hidden;
    if (!PyArg_ParseTuple(arguments, "OnnnOOOOOOOOO", &options, &rows, &classes, &hidden, &buckets, &idf, &logs,
                          &bias, &vectors, &scales, &hidden_bias, &dense, &dense_scales))
        return NULL;
    Scorer *scorer = new_scorer(type, options, rows, classes, buckets, idf, logs, bias);
    if (scorer == NULL)
        return NULL;
    if (hidden < 1 || hidden > 1 << 16) {
        PyErr_SetString(PyExc_ValueError, "the shape of the model is out of range");
        goto failed;
    }
    const size_t units = scorer->hidden = (size_t)hidden;
    if ((scorer->vectors = hold(scorer, vectors, scorer->rows * units, 1)) == NULL ||
        (scorer->vector_scales = hold(scorer, scales, scorer->rows, sizeof(float))) == NULL ||
        (scorer->hidden_bias = hold(scorer, hidden_bias, units, sizeof(float))) == NULL ||
        (scorer->dense = hold(scorer, dense, units * scorer->classes, 1)) == NULL ||
        (scorer->dense_scales = hold(scorer, dense_scales, scorer->classes, sizeof(float))) == NULL)
        goto failed;
    return (PyObject *)scorer;
failed:
    Py_DECREF(scorer);
    return NULL;
}

static void scorer_free(PyObject *self)
{
    Scorer *scorer = (Scorer *)self;
    PyTypeObject *type = Py_TYPE(self);
    for (int i = 0; i < scorer->held; i++)
        PyBuffer_Release(&scorer->buffers[i]);
    free(scorer->known);
    free(scorer->before);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *scorer_logits(PyObject *self, PyObject *const *arguments, Py_ssize_t given)
{
    const Scorer *scorer = (Scorer *)self;
    Py_buffer out;
    if (given != 2) {
        PyErr_SetString(PyExc_TypeError, "logits takes texts and an array");
        return NULL;
    }
    PyObject *texts = arguments[0];
    const Py_ssize_t count = PySequence_Size(texts);
    if (count < 0 || PyObject_GetBuffer(arguments[1], &out, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0)
        return NULL;
    Work text_work = {0}, gram_work = {0};
    int failed = (size_t)out.len != (size_t)count * scorer->classes * sizeof(float);
    if (failed)
        PyErr_SetString(PyExc_ValueError, "the array for the logits has another shape");
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        PyObject *text = PySequence_GetItem(texts, i), *owner = NULL;
        Py_ssize_t size;
        const char *bytes = text == NULL ? NULL : utf8_of(text, scorer->options.max_characters, &size, &owner);
        if (bytes == NULL) {
            failed = 1;
        } else {
            float *row = (float *)out.buf + (size_t)i * scorer->classes;
            if (size >= LONG_TEXT) {
                Py_BEGIN_ALLOW_THREADS
                failed = score(scorer, bytes, (size_t)size, &text_work, &gram_work, row) < 0;
                Py_END_ALLOW_THREADS
            } else {
                failed = score(scorer, bytes, (size_t)size, &text_work, &gram_work, row) < 0;
            }
            if (failed)
                PyErr_NoMemory();
        }
        Py_XDECREF(owner);
        Py_XDECREF(text);
    }
    free(text_work.memory);
    free(gram_work.memory);
    PyBuffer_Release(&out);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef scorer_methods[] = {
    {"linear", linear, METH_VARARGS | METH_CLASS, "Return the scorer of a linear model."},
    {"deep", deep, METH_VARARGS | METH_CLASS, "Return the scorer of a deep table."},
    {"logits", (PyCFunction)(void (*)(void))scorer_logits, METH_FASTCALL, "Write the float32 logits [N, C] of N texts into an array."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot scorer_slots[] = {
    {Py_tp_dealloc, scorer_free},
    {Py_tp_methods, scorer_methods},
    {Py_tp_doc, "A model over hashed n-grams, from text to logits."},
    {0, NULL},
};

static PyType_Spec scorer_spec = {
    "runtime.ngrams._scoring.Scorer", sizeof(Scorer), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, scorer_slots,
};

static int fill(PyObject *module)
{
    kept_bytes();
    PyObject *type = PyType_FromSpec(&scorer_spec);
    if (type == NULL)
        return -1;
    const int result = PyModule_AddObjectRef(module, "Scorer", type);
    Py_DECREF(type);
    return result;
}

static PyMethodDef functions[] = {
    {"hash_buckets", hash_buckets, METH_VARARGS, "Return the int64 buckets of a text's n-grams as bytes."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_scoring", "Hashed n-grams and the models over them, compiled.", 0, functions, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__scoring(void)
{
    return PyModuleDef_Init(&definition);
}
