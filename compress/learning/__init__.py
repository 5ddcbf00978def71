"""Training: teachers, and whatever learns from one: students, their twins, text CNNs, linear stages."""
