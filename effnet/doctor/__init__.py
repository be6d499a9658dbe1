"""Diagnosis of silently low accuracy: wrong preprocessing, label order, damaged weights."""

from effnet.doctor import diagnosis, examination, repair

ConfigurationTrial = diagnosis.ConfigurationTrial
Diagnosis = diagnosis.Diagnosis
Finding = diagnosis.Finding
diagnose = examination.diagnose
repair_model = repair.repair_model
