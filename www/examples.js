// Sets of sentences that show what the numbers tell, and what they do not.

/** Four pairs of the KLUE-STS development set, CC BY-SA 4.0, with what people gave them out of 5. */
const KLUE = {
  name: 'exampleHuman',
  rows: [
    '다만, 도로와 인접해서 거리의 소음이 들려요.',
    '형이 다시 캐나다 들어가야 하니 가족모임 일정은 바꾸지 마세요.',
    '방안에 필요한 시설이 모두 있어서 매우 편리합니다.',
    '관광자원화 검토를 모범적으로 적용한 지자체에는 홍보·컨설팅, 관광상품 개발 지원 등을 제공할 계획이다.',
  ],
  columns: [
    '하지만, 길과 가깝기 때문에 거리의 소음을 들을 수 있습니다.',
    '가족 모임 일정은 바꾸지 말도록 하십시오.',
    '특히, 숙소 근처에 안전한 실내 주차장이 있어서 편리합니다.',
    '아울러 지자체, 지역관광협회 등과 함께 수시로 관광지 현장을 점검할 계획이다.',
  ],
  human: [3.7, 2.5, 1.1, 0.7],
};

export const EXAMPLES = [
  KLUE,
  {
    name: 'exampleParaphrase',
    rows: ['집에서 역까지 걸어서 5분이에요.', '어머니 생신 선물을 추천해 줘.', '이 영화 정말 재미있었어.', '비밀번호를 바꾸고 싶어요.'],
    columns: ['지하철역이 도보로 5분 거리입니다.', '엄마 생일에 뭘 드리면 좋을까?', '이 작품은 무척 흥미로웠다.', '암호를 변경하려고 합니다.'],
  },
  {
    name: 'exampleNegation',
    rows: ['나는 커피를 좋아한다.', '오늘은 비가 온다.'],
    columns: ['나는 커피를 좋아하지 않는다.', '오늘은 비가 오지 않는다.', '커피는 내 입맛에 맞는다.'],
  },
  {
    name: 'exampleSameWord',
    rows: ['눈이 펑펑 내린다.', '눈이 나빠져서 안경을 맞췄다.', '밤길을 혼자 걸었다.', '밤을 구워 먹었다.'],
    columns: ['함박눈이 온 세상을 덮었다.', '시력이 떨어져 안과에 갔다.', '어두운 거리를 혼자 걸어왔다.', '군밤을 사 먹었다.'],
  },
];

/** What people gave to this pair out of 5, if it is one of the published ones. */
export function humanScore(a, b) {
  const at = KLUE.rows.indexOf(a.trim());
  return at >= 0 && KLUE.columns[at] === b.trim() ? KLUE.human[at] : undefined;
}
