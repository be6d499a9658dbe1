"""Why a network takes as long as it does."""
