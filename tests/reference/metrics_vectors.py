#!/usr/bin/env python3
"""What programs that nobody here wrote say of answers: the cases of tests/test_eval_metrics.c.

    python3 -m venv venv && venv/bin/pip install rouge-score==0.1.2 rapidfuzz==3.14.6 scikit-learn==1.9.1
    venv/bin/python tests/reference/metrics_vectors.py > tests/data/metrics.tsv

A line a case: the metric, two texts (of ndcg: relevance in order of rank, and all relevance), and the values, with tabs
between them; a newline in a text is \\n. SubEM, accuracy and F1 go by normalize_answer and f1_score of SQuAD's
evaluate-v1.1.py, which HELMET, LongBench and the paper's other sets use, copied below; ROUGE-L is rouge-score's without stemming; edit similarity is
rapidfuzz's fuzz.ratio, which LongBench and RepoBench report; NDCG@10 is scikit-learn's.
"""
import random
import re
import string
from collections import Counter

import numpy as np
from rapidfuzz import fuzz
from rouge_score import rouge_scorer
from sklearn.metrics import ndcg_score


def normalize_answer(s):
    def remove_articles(text):
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text):
        return " ".join(text.split())

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    def lower(text):
        return text.lower()

    return white_space_fix(remove_articles(remove_punc(lower(s))))


def f1_score(prediction, ground_truth):
    prediction_tokens = normalize_answer(prediction).split()
    ground_truth_tokens = normalize_answer(ground_truth).split()
    common = Counter(prediction_tokens) & Counter(ground_truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    f1 = (2 * precision * recall) / (precision + recall)
    return f1


PAIRS = [
    ("The special magic number is 1234567.", "1234567"),
    ("1,234,567", "1234567"),
    ("123456", "1234567"),
    ("", "1234567"),
    ("anything", ""),
    ("", ""),
    ("The cat; the hat!", "cat hat"),
    ("An apple a day", "apple day"),
    ("theatre", "the"),
    ("A UUID: 0F8FAD5B-D9CB-469F-A165-70867728950E.", "0f8fad5b-d9cb-469f-a165-70867728950e"),
    ("Paris\n\tFrance", "paris france"),
    ("New York City", "york"),
    ("the", "a"),
    ("café au lait", "cafe"),
    ("naïve café", "café"),
    ("def f(x):\n    return x + 1", "def f(y):\n    return y + 1"),
    ("self.assertEqual(a, b)", "self.assertEquals(b, a)"),
    ("漢字とかな", "漢字かな"),
    ("x", "xxxxxxxxxx"),
    ("the quick brown fox jumps over the lazy dog", "a quick fox jumped over the lazy brown dog"),
]
WORDS = "the a fox Dog runs, jumps. over-under river 42 7 amber Silver stone's and of near".split()


def shown(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def main():
    rng = random.Random(7)
    pairs = list(PAIRS)
    for _ in range(40):
        a = [rng.choice(WORDS) for _ in range(rng.randrange(1, 25))]
        b = [w for w in a if rng.random() < 0.7] + [rng.choice(WORDS) for _ in range(rng.randrange(4))]
        if rng.random() < 0.3:
            rng.shuffle(b)
        pairs.append((" ".join(a), " ".join(b)))
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    for a, b in pairs:
        n, m = normalize_answer(a), normalize_answer(b)
        r = scorer.score(b, a)["rougeL"]
        print("subem", shown(a), shown(b), int(m in n), sep="\t")
        print("accuracy", shown(a), shown(b), int(m == n), sep="\t")
        print("f1", shown(a), shown(b), f"{f1_score(a, b):.9f}", sep="\t")
        print("rouge", shown(a), shown(b), *(f"{v:.9f}" for v in (r.precision, r.recall, r.fmeasure)), sep="\t")
        print("edit", shown(a), shown(b), f"{fuzz.ratio(a, b) / 100:.9f}", sep="\t")
    for _ in range(30):
        n = rng.randrange(2, 30)
        relevance = [rng.choice([0, 0, 0, 1, 2, 3]) for _ in range(n)]
        value = ndcg_score(np.array([relevance]), np.array([list(range(n, 0, -1))]), k=10)
        print("ndcg", " ".join(map(str, relevance)), " ".join(map(str, sorted(relevance))), f"{value:.9f}", sep="\t")


main()
