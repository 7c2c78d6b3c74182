"""All knowledge of Hugging Face internals: families, loading, surgery."""
