"""Tables: the catalogue of every column, how events become rows, and the schema in QuestDB."""
