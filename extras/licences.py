"""
Licenses: keep only documents that have one of those that you name.

    python prepare.py --source=MY_CODE --licences=mit,bsd,apache-2.0,unknown

    licence_of({'license': ['MIT', 'BSD']})                 # 'mit, bsd'
    licence_of({'text': 'No license is named.'})            # 'unknown'

A document with several licenses stays if you name all of them. The report lists the licenses of
what stays here. Whether you may use a text is a question for you, not for a program.
"""
NAMES = 'licence', 'license', 'max_stars_repo_licenses'     # of a record; the last is The Stack's
OF_PATH = {'stdlib': 'psf', 'shakespeare': 'public domain'}


def stage(licences, sources):
    """Return a stage of prepare.py that notes the license of each document. licences: those to
    keep, such as 'mit,bsd', or '' for all. sources: {name: (path, weight)}."""
    wanted = {name.strip() for name in licences.lower().split(',')} - {''}

    def check_licence(document, notes):
        path, _ = sources[document['source']]
        licence = document['licence'] = OF_PATH.get(path) or licence_of(document['record'])
        if wanted and not wanted.issuperset(licence.split(', ')):
            return f'licence {licence}'
        notes[f'licenses of {document["source"]}'][licence] += 1

    return check_licence


def licence_of(record):
    """Return the license that a record names, in lower case, or 'unknown'."""
    value = next((record[name] for name in NAMES if record.get(name) is not None), '')
    if isinstance(value, list):
        value = ', '.join(map(str, value))
    return value.lower() if isinstance(value, str) and value else 'unknown'
