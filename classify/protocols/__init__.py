"""Published protocols of evaluating frozen features, by name, each as its authors' code has it."""

from classify.protocols.clip import CLIP
from classify.protocols.dinov2 import DINOV2
from classify.protocols.dinov2_knn import DINOV2_KNN
from classify.protocols.few_shot import FEW_SHOT
from classify.protocols.kornblith import KORNBLITH
from classify.protocols.protocol import Options, Protocol, ProtocolData, ProtocolResult
from classify.protocols.vissl_svm import VISSL_SVM

PROTOCOLS = {each.name: each for each in (KORNBLITH, CLIP, DINOV2, DINOV2_KNN, VISSL_SVM, FEW_SHOT)}

__all__ = ["PROTOCOLS", "Options", "Protocol", "ProtocolData", "ProtocolResult"]
