#!/usr/bin/env python3
"""House rules for contracts, as a stage behind contract.analyze: accept, review or reject, and why.

    penstock up --pipelines :examples/rules --python examples/rules/contract_rules.py
    penstock submit contract.analyze --pipeline contract.rules --file examples/contract-en.txt --wait --json

The rules are a starting point to be replaced by one's own. Give them a new version when they change:
results carry it.
"""
import re

import penstock

PAYMENT_DAYS_MAX = 45
LAWS = re.compile("New York|Delaware|England|中国|中华人民共和国")  # those that the house can live with
NEEDED = {  # id: (types of the taxonomy, or these words in a clause, and what it means when absent)
    "no-termination": (("Termination For Convenience",), "terminat|终止|解除",
                       "There is no way out of this contract before its end."),
    "no-liability-cap": (("Cap On Liability",), "shall not exceed|不超过.*赔偿",
                         "Nothing limits what a claim may cost."),
}
worker = penstock.Worker("rules")


def missing(analysis):
    for name, (types, words, why) in NEEDED.items():
        if not any(clause["type"] in types or re.search(words, clause["text"], re.IGNORECASE)
                   for clause in analysis["clauses"]):
            yield {"rule": name, "verdict": "reject", "why": why, "clause": None}


def late_payment(analysis):
    """An invoice that is due later than the house pays."""
    for i, clause in enumerate(analysis["clauses"]):
        if not re.search("invoice|发票|付款", clause["text"], re.IGNORECASE):
            continue
        for entity in analysis["entities"]:
            days = re.fullmatch(r"P(\d+)D", str(entity["normalized"]))
            inside = clause["charspan"][0] <= entity["charspan"][0] < clause["charspan"][1]
            if inside and days and int(days[1]) > PAYMENT_DAYS_MAX:
                yield {"rule": "late-payment", "verdict": "review", "clause": i,
                       "why": f"Payment within {days[1]} days; {PAYMENT_DAYS_MAX} are usual here."}


def foreign_law(analysis):
    for entity in analysis["entities"]:
        if entity["type"] == "governing_law" and not LAWS.search(entity["value"]):
            yield {"rule": "foreign-law", "verdict": "review", "clause": None,
                   "why": f"It is governed by the law of {' '.join(entity['value'].split())}."}


def high_risk(analysis):
    for risk in analysis["risks"]:
        if risk["level"] == "high":
            yield {"rule": risk["rule"], "verdict": "review", "clause": risk["clause"],
                   "why": risk["why"]}


@worker.stage("rules.contract", version="1")
def decide(job: penstock.StageJob) -> dict:
    analysis = job.input
    findings = [finding for rule in (missing, late_payment, foreign_law, high_risk)
                for finding in rule(analysis)]
    verdicts = {finding["verdict"] for finding in findings}
    verdict = next((v for v in ("reject", "review") if v in verdicts), "accept")
    job.notice(f"{verdict}: {len(findings)} findings")
    return {**analysis, "decision": {"verdict": verdict, "findings": findings, "rules": "house/1"}}


if __name__ == "__main__":
    raise SystemExit(worker.run())
