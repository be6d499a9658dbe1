"""What makes accuracy silently low."""

from effnet.doctor.cure import mend as mend
from effnet.doctor.diagnosis import Diagnosis as Diagnosis
from effnet.doctor.diagnosis import Finding as Finding
from effnet.doctor.diagnosis import Trial as Trial
from effnet.doctor.examination import diagnose as diagnose
