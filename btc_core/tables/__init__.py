"""Tables: every column, the DDL made of them, and the schema that QuestDB has."""
