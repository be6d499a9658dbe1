"""What makes accuracy silently low."""

from effnet.doctor.diagnosis import ConfigurationTrial as ConfigurationTrial
from effnet.doctor.diagnosis import Diagnosis as Diagnosis
from effnet.doctor.diagnosis import Finding as Finding
from effnet.doctor.examination import diagnose as diagnose
from effnet.doctor.repair import repair_model as repair_model
